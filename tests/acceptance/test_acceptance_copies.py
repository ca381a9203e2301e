"""What becomes of a model: its optimizer, copies, averages and files."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from acceptance_rows import (
    AT_ONCE,
    KINDS,
    NOTHING,
    rows,
)
from acceptance_world import (
    DENSE,
    STOP_STEP,
    TOTAL_STEPS,
    Training,
    bits,
    encoder_of,
    logits_of,
    nonzero_weights,
)
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import BertForSequenceClassification

import multiprune

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from multiprune.pruning.pruner import Pruner


@rows(7)
def test_07_saved_and_loaded_it_answers_the_same(name: str, tmp_path: Path) -> None:
    training = Training.begun(name).train()
    multiprune.save(tmp_path / "early", training.model)
    training.pruner.finalize()
    multiprune.save(tmp_path / "late", training.model)
    for folder in ("early", "late"):
        loaded = multiprune.load(tmp_path / folder)
        assert isinstance(loaded, BertForSequenceClassification)
        torch.testing.assert_close(logits_of(loaded), training.logits())
        assert nonzero_weights(encoder_of(loaded)) == training.kept()


@rows(8)
def test_08_optimizer_owns_every_parameter(name: str) -> None:
    training = Training.begun(name)
    sizes = []
    for _ in range(TOTAL_STEPS):
        training.step()
        trained = list(training.model.parameters())
        owned = [one for group in training.optimizer.param_groups for one in group["params"]]
        assert set(map(id, owned)) == set(map(id, trained))
        # Nothing is remembered of new factors before their first step.
        moved = [one for one in trained if one.grad is not None or name not in AT_ONCE]
        assert set(training.optimizer.state) == set(moved)
        for parameter, moments in training.optimizer.state.items():
            assert moments["exp_avg"].shape == moments["exp_avg_sq"].shape == parameter.shape
        sizes.append(sum(one.numel() for one in trained))
    assert sizes[STOP_STEP - 2] == sizes[0] > sizes[STOP_STEP - 1] == sizes[-1]


def assert_comes_to_its_budget(name: str, model: nn.Module, pruner: Pruner) -> None:
    pruner.prune(1.0)
    pruner.finalize()
    kept = nonzero_weights(encoder_of(model))
    assert kept == pruner.ledger().kept_in("encoder_linear")
    asked = DENSE if KINDS[name] == NOTHING else DENSE // 2
    assert asked - 64 < kept <= asked
    assert logits_of(model).isfinite().all()


@rows(10)
def test_10_copied_while_it_prunes(name: str) -> None:
    training = Training.begun(name).train(4)
    before, logits = bits(training.model), training.logits()
    alone = copy.deepcopy(training.model)
    model, pruner = copy.deepcopy((training.model, training.pruner))
    training.train()
    for copied in (alone, model):
        assert bits(copied) == before
        assert torch.equal(logits_of(copied), logits)
    assert_comes_to_its_budget(name, model, pruner)


@pytest.mark.parametrize("use_buffers", [False, True])
@rows(10)
def test_10_averaged_once_its_schedule_has_ended(name: str, use_buffers: bool) -> None:
    training = Training.begun(name).train(STOP_STEP)
    average = moving_average(training.model, use_buffers=use_buffers)
    by_hand: dict[str, Tensor] = {}
    for step in range(STOP_STEP + 1, TOTAL_STEPS + 1):
        training.train(step)
        average.update_parameters(training.model)
        for path, one in training.model.named_parameters():
            now = one.detach().clone()
            by_hand[path] = by_hand[path].lerp(now, 0.5) if path in by_hand else now
    for path, one in average.module.named_parameters():
        torch.testing.assert_close(one.detach(), by_hand[path])
    training.model.load_state_dict(average.module.state_dict())
    training.pruner.finalize()
    assert nonzero_weights(encoder_of(training.model)) == training.kept()
    assert logits_of(training.model).isfinite().all()


def moving_average(model: nn.Module, *, use_buffers: bool = False) -> AveragedModel:
    ema = get_ema_multi_avg_fn(0.5)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=ema, use_buffers=use_buffers)


@rows(10)
def test_10_average_that_begins_while_masks_change_is_refused(name: str) -> None:
    for steps in (0, STOP_STEP - 1):
        training = Training.begun(name).train(steps)
        if name in ("none", "fixed"):  # whose masks never change
            moving_average(training.model)
            continue
        with pytest.raises(ValueError, match=r"make it once the schedule has ended"):
            moving_average(training.model)


@rows(10)
def test_10_last_checkpoints_averaged(name: str) -> None:
    training, states = Training.begun(name).train(STOP_STEP), []
    for _ in range(STOP_STEP, TOTAL_STEPS):
        training.step()
        states.append(copy.deepcopy(training.model.state_dict()))
    mean = {
        key: sum(state[key] for state in states) / len(states) if last.is_floating_point() else last
        for key, last in states[-1].items()
    }
    other = Training.begun(name, seed=1)
    other.model.load_state_dict(mean)
    other.pruner.finalize()
    assert nonzero_weights(encoder_of(other.model)) == other.kept() == training.kept()
    assert logits_of(other.model).isfinite().all()
