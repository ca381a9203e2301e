"""Ten promises, each held by every file of ``conf/pruner``, by what README.md documents alone.

``acceptance_rows.py`` lists them. Here pruners train in a loop of one's own: what a run comes to.
``test_acceptance_scope.py`` says what of a model they touch, ``test_acceptance_copies.py`` what
becomes of it, ``test_acceptance_ranks.py`` has several processes, and ``test_acceptance_runs.py``
whole runs of ``train.py``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from acceptance_rows import (
    AT_ONCE,
    FILES,
    KINDS,
    LARGER_PARTS,
    LEARNING_GATES,
    NO_ROW,
    NOTHING,
    NOTHING_CUT,
    NOTHING_PRUNED,
    PROMISES,
    RANKS,
    UNITS,
    rows,
)
from acceptance_world import (
    DENSE,
    NEURON,
    STOP_STEP,
    TOTAL_STEPS,
    Regime,
    Training,
    adamw,
    bits,
    digest,
    encoder_of,
    momentum,
    nonzero_weights,
)
from pruned_values import pruned_values

if TYPE_CHECKING:
    from collections.abc import Callable


def test_every_pruner_has_a_kind_and_every_kind_a_pruner() -> None:
    assert len(FILES) >= 17
    assert FILES.keys() == KINDS.keys()


def test_every_promise_is_held_to_every_pruner_in_some_file() -> None:
    held = [
        (int(promise), int(name))
        for file in Path(__file__).parent.glob("test_*.py")
        for promise, name in re.findall(r"@rows\((\d+)\)\ndef test_(\d+)_", file.read_text())
    ]
    assert all(promise == name for promise, name in held)
    assert {promise for promise, _ in held} == PROMISES.keys()


def prunes_nothing(name: str) -> bool:
    training = Training.begun(name).train()
    return not training.pruner.masks() and training.kept() == DENSE


def trains_larger_parts(name: str) -> bool:
    training = Training.begun(name).train()
    gone = pruned_values(training.model, training.pruner)
    return all(values.all() for values in gone.values()) and training.kept() < DENSE


def cuts_nothing(name: str) -> bool:
    training = Training.begun(name)
    shapes = [one.shape for one in training.model.parameters()]
    return shapes == [one.shape for one in training.train().model.parameters()]


CHECKS: dict[str, Callable[[str], bool]] = {
    NOTHING_PRUNED: prunes_nothing,
    LARGER_PARTS: trains_larger_parts,
    NOTHING_CUT: cuts_nothing,
}


@pytest.mark.parametrize("pair", NO_ROW, ids=str)
def test_a_pruner_without_a_row_is_there_and_its_reason_is_true(pair: tuple[int, str]) -> None:
    promise, name = pair
    assert promise in PROMISES
    assert name in FILES
    assert CHECKS[NO_ROW[pair]](name)


@rows(1)
def test_01_stopped_after_every_step_it_ends_the_same(name: str) -> None:
    straight, stopped = Training.begun(name).train(), Training.begun(name).train(1)
    for step in range(2, TOTAL_STEPS + 1):
        # All that another process would have is the state; its weights were others.
        stopped = Training.begun(name, seed=step, saved=stopped.state()).train(step)
        assert stopped.losses == [straight.losses[step - 1]]
    assert digest(stopped.pruner.masks()) == digest(straight.pruner.masks())
    assert stopped.kept() == straight.kept()
    assert bits(stopped.model) == bits(straight.model)


@pytest.mark.parametrize("percent", [30, 43, 50, 67, 91])
@rows(3)
def test_03_asked_is_kept(name: str, percent: int) -> None:
    training = Training.begun(name, fraction=percent / 100).train(2)
    training.pruner.prune(1.0)
    training.pruner.finalize()
    kept = nonzero_weights(encoder_of(training.model))
    assert kept == training.kept()
    asked = DENSE if KINDS[name] == NOTHING else DENSE * percent // 100
    # A rank of a matrix of 24 x 32 is the smallest.
    smallest_group = {UNITS: NEURON, RANKS: 24 + 32}.get(KINDS[name], 1)
    assert asked - smallest_group < kept <= asked


REGIMES = {
    "momentum": Regime(momentum),
    "weight_decay": Regime(adamw),
    "bf16": Regime(adamw, dtype=torch.bfloat16),
    "fp16_scaler": Regime(adamw, dtype=torch.float16),
    "accumulation": Regime(adamw, micro_batches=3),
}


@pytest.mark.parametrize("regime", REGIMES.values(), ids=REGIMES)
@rows(5)
def test_05_pruned_weights_are_zero_after_every_step(name: str, regime: Regime) -> None:
    training = Training.begun(name, regime=regime)
    pruned = []
    for step in range(TOTAL_STEPS):
        if step == 1 and name in LEARNING_GATES:
            training.pruner.prune(1.0)  # so few steps close none
        training.step()
        gone = pruned_values(training.model, training.pruner)
        assert [path for path, values in gone.items() if values.any()] == []
        pruned.append(sum(values.numel() for values in gone.values()))
    assert (max(pruned[: STOP_STEP - 1]) > 0) is (name not in AT_ONCE)
    assert training.kept() <= DENSE // 2
