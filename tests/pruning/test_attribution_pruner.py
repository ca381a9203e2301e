"""Attribution that is gathered in training: the same as without, and no hook longer than needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from structured_world import ALL_FILES, STOP_STEP, TOTAL_STEPS, Case, Network, Run, loss_of
from tiny_encoders import tokens
from torch import Tensor, nn

from multiprune.budget import FractionBudget
from multiprune.pruning.attribution import (
    ActivationGradient,
    ActivationNorm,
    Attribution,
    Fisher,
    IntegratedGradients,
    Taylor,
)
from multiprune.pruning.attribution_pruner import AttributionPruner
from multiprune.pruning.calibration import LogProbabilities, attributed
from multiprune.pruning.importance import Scores
from multiprune.pruning.removal import HEADS, LAYERS, NEURONS
from multiprune.pruning.structured import ImportanceState

METHODS: list[Attribution] = [ActivationGradient(), Taylor(), Fisher(), ActivationNorm()]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda one: type(one).__name__)


def prepared(
    method: Attribution | None = None, *, fraction: float = 0.4, **options: Any
) -> tuple[Network, AttributionPruner]:
    model = Network().train()
    method = ActivationGradient() if method is None else method
    pruner = AttributionPruner(budget=FractionBudget(fraction=fraction), method=method, **options)
    pruner.prepare(model, model.encoder)
    return model, pruner


def sums_of(pruner: AttributionPruner) -> list[Scores]:
    return [one.importance() for one in pruner.states if isinstance(one, ImportanceState)]


def without_training(method: Attribution, *numbers: int) -> list[Scores]:
    """Return the sums over the examples of some batches."""
    model = Network()

    def answers(number: int) -> LogProbabilities:
        generator = torch.Generator().manual_seed(number)
        labels = torch.randint(3, (3,), generator=generator)
        return LogProbabilities(model(tokens(number)).log_softmax(-1)[range(3), labels])

    return attributed(model, model.encoder, method, numbers, answers)


def step(pruner: AttributionPruner) -> None:
    pruner.before_step()
    pruner.after_step()


def assert_close(actual: list[Scores], expected: list[Scores], factor: float = 1.0) -> None:
    for one, other in zip(actual, expected, strict=True):
        for name, value in vars(other).items():
            torch.testing.assert_close(getattr(one, name), factor * value, rtol=1e-4, atol=1e-6)


def totals(method: Attribution, sums: list[Scores]) -> list[Scores]:
    return [Scores(*map(method.in_total, vars(one).values())) for one in sums]


@every_method
def test_steps_sum_up_what_is_measured_without_training(method: Attribution) -> None:
    model, pruner = prepared(method)
    for number in (0, 1):
        loss_of(model, number).backward()  # type: ignore[no-untyped-call]
        step(pruner)
    assert_close(totals(method, sums_of(pruner)), without_training(method, 0, 1))


def test_parts_of_a_step_are_summed() -> None:
    model, pruner = prepared()
    for number in (0, 1):
        (loss_of(model, number) / 2).backward()  # type: ignore[no-untyped-call]
    step(pruner)
    # Gradients are half as large.
    assert_close(sums_of(pruner), without_training(pruner.method, 0, 1), factor=0.5)


def test_several_passes_may_share_a_backward_pass() -> None:
    model, pruner = prepared()
    halves = {name: part[:2] for name, part in tokens(1).items()}
    loss = loss_of(model, 0)
    torch.autograd.backward([loss, model(halves).log_softmax(-1)[:, 0].mean()])
    step(pruner)
    other, alone = prepared()
    loss_of(other, 0).backward()  # type: ignore[no-untyped-call]
    other(halves).log_softmax(-1)[:, 0].mean().backward()
    step(alone)
    assert_close(sums_of(pruner), sums_of(alone))


def test_passes_that_are_not_trained_on_do_not_count() -> None:
    model, pruner = prepared()
    model.eval()
    loss_of(model, 3).backward()  # type: ignore[no-untyped-call]
    model.train()
    with torch.no_grad():
        model(tokens(4))
    model(tokens(5))  # nothing is differentiated
    loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
    step(pruner)
    assert_close(sums_of(pruner), without_training(pruner.method, 0))


def test_examples_of_all_processes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pruner = prepared()
    distributed = torch.distributed

    def all_reduce(flat: Tensor) -> None:
        flat *= 2  # the other process has seen the same

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
    step(pruner)
    assert_close(sums_of(pruner), without_training(pruner.method, 0), factor=2)


def hooks(model: nn.Module) -> int:
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return sum(len(getattr(module, name)) for module in model.modules() for name in names)


def test_hooks_are_there_while_units_may_go_and_in_passes_of_training_alone() -> None:
    model, pruner = prepared()
    seen: list[int] = []
    linear = model.encoder.get_submodule("encoder.layer.0.output.dense")
    linear.register_forward_pre_hook(lambda *_: seen.append(hooks(model)))
    idle = hooks(model)
    loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
    assert hooks(model) == idle
    model.eval()
    model(tokens())
    assert seen[0] > idle == seen[1]
    pruner.before_step()
    pruner.after_step()
    pruner.prune(1.0)
    assert pruner.shrink()
    assert hooks(model) == 1
    assert hooks(Network()) == 0


@pytest.mark.parametrize("was_cut", [False, True])
def test_no_hook_is_left_behind_by_finalize(was_cut: bool) -> None:
    model, pruner = prepared()
    pruner.prune(1.0)
    if was_cut:
        pruner.shrink()
    pruner.finalize()
    assert hooks(model) == 0


def test_hooks_of_a_run_resumed_after_the_cut_go_at_its_first_step() -> None:
    file = next(one for one in ALL_FILES if one.stem == "attribution")
    for granularity in ((HEADS, NEURONS), (HEADS, NEURONS, LAYERS)):
        case = Case(file, granularity)
        straight = Run.fresh(case, seed=0)
        straight.train(range(STOP_STEP))
        resumed = Run.fresh(case, seed=1, saved=straight.save())
        resumed.train(range(STOP_STEP, TOTAL_STEPS))
        assert hooks(resumed.model) == hooks(straight.model) == 0


def test_failed_pass_leaves_no_hooks_on_layers() -> None:
    model, _ = prepared()
    idle = hooks(model)
    with pytest.raises(IndexError):
        model({"input_ids": torch.tensor([[99]]), "attention_mask": torch.tensor([[1]])})
    assert hooks(model) == idle


def test_mask_that_is_not_of_tokens_is_refused() -> None:
    model, _ = prepared()
    batch = tokens()
    mask = batch["attention_mask"][:, None, None, :]
    with pytest.raises(ValueError, match=r"shape \(examples, tokens\).*\(3, 1, 1, 7\)\."):
        model.encoder(input_ids=batch["input_ids"], attention_mask=mask)


def test_without_a_mask_every_token_counts() -> None:
    batch = {name: part[:1] for name, part in tokens().items()}
    measured: list[list[Scores]] = []
    for inputs in (batch, {"input_ids": batch["input_ids"]}):
        model, pruner = prepared()
        model.encoder(**inputs).last_hidden_state.square().mean().backward()
        step(pruner)
        measured.append(sums_of(pruner))
    assert_close(measured[0], measured[1])


def test_passes_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match="one pass of the model as it is, but IntegratedG"):
        prepared(IntegratedGradients(steps=1))


def test_relative_scores_compare_units_of_one_kind_and_layer() -> None:
    model, pruner = prepared(relative=True)
    for number in range(2):
        loss_of(model, number).backward()  # type: ignore[no-untyped-call]
        step(pruner)
    for score in pruner.scores():
        assert float(score.neurons.square().mean()) == pytest.approx(1)
        assert float(score.heads.square().mean()) == pytest.approx(1)


def test_heads_that_contribute_least_go() -> None:
    model, pruner = prepared(Fisher(), fraction=0.8, granularity=(HEADS,))
    loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
    step(pruner)
    sums = torch.cat([one.heads for one in without_training(pruner.method, 0)])
    pruner.prune(1.0)
    kept = torch.cat([one.kept().heads for one in pruner.states])
    # Of 11,264 weights 2,253 go; a head, which has 1,024, may overshoot.
    assert int((~kept).sum()) == 3
    assert sums[kept].min() > sums[~kept].max()
