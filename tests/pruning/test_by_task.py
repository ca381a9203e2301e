"""Rankings of tasks joined: by hand, and against rankings of each task alone."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from structured_world import (
    TASKS,
    TOTAL_STEPS,
    WEIGHTS,
    Network,
    adamw,
    driver_of,
    loss_of,
    one_step,
)
from torch import nn

from multiprune.budget import CountBudget, FractionBudget
from multiprune.pruning.by_task import ByTask, HighestRank, MeanRank, top_shares
from multiprune.pruning.combined import Combined
from multiprune.pruning.fisher import Fisher
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.importance import GateFisher, WeightMagnitude
from multiprune.pruning.movement import Movement
from multiprune.pruning.ready import NotReadyError
from multiprune.pruning.schedule import LinearSchedule
from multiprune.pruning.structured import Structured

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

BOTH = [MeanRank, HighestRank]


def test_a_share_is_of_the_scores_that_are_at_least_as_large() -> None:
    first, second = top_shares([torch.tensor([[5.0, -1.0], [0.0, -0.0]]), torch.tensor(7.0)])
    assert first.tolist() == [[pytest.approx(0.4), 1], [pytest.approx(0.8), pytest.approx(0.8)]]
    assert second == pytest.approx(0.2)
    inside = top_shares([torch.tensor([9.0, 2.0, 1.5, -3.0])], [torch.tensor([1.0, 2.0])])
    assert inside[0].tolist() == [0, 0.5, 0.5, 1]


def test_shares_are_what_sorting_says() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 1000, generator=generator).pow(3)
    ranks = scores.flatten().argsort(descending=True).argsort() + 1
    share = torch.cat([*top_shares([*scores])])
    # Those that differ by less than 1 in 8,192 are one.
    torch.testing.assert_close(share, ranks / 2000, rtol=0, atol=2 / 2000)


def test_nan_stays_for_who_refuses_it() -> None:
    (share,) = top_shares([torch.tensor([1.0, math.nan])])
    assert share.isnan().tolist() == [False, True]


def gathered(by_task: ByTask, squares: Sequence[Sequence[float]]) -> Fisher:
    """Return a pruner of six equal weights to which each task has shown a gradient."""
    layer = nn.Linear(6, 1, bias=False)
    nn.init.ones_(layer.weight)
    pruner = Fisher(budget=CountBudget(count=2), decay=0.5, by_task=by_task)
    pruner.prepare(layer)
    for task, square in zip(TASKS, squares, strict=False):
        layer.weight.grad = torch.tensor([square]).sqrt()
        pruner.note_tasks([task])
        pruner.before_step()
        pruner.after_step()
    return pruner


# The first task's gradients are a hundred times as large: a sum would be its ranking.
SQUARES = [[600.0, 500.0, 400.0, 300.0, 200.0, 100.0], [1.0, 3.0, 5.0, 4.0, 2.0, 6.0]]


@pytest.mark.parametrize(
    ("by_task", "expected"),
    [
        # Ranks from the top: 1 2 3 4 5 6 and 6 4 2 3 5 1. Their sums are 7 6 5 7 10 7.
        (MeanRank, [False, True, True, False, False, False]),
        # The better of the two: 1 2 2 3 5 1.
        (HighestRank, [True, False, False, False, False, True]),
    ],
)
def test_ranks_are_joined_and_not_gradients(by_task: type[ByTask], expected: list[bool]) -> None:
    pruner = gathered(by_task(tasks=TASKS), SQUARES)
    pruner.prune(1.0)
    assert pruner.masks()["weight"][0].tolist() == expected


@pytest.mark.parametrize("by_task", BOTH)
def test_a_task_without_a_step_has_no_say(by_task: type[ByTask]) -> None:
    pruner = gathered(by_task(tasks=TASKS), SQUARES[:1])
    pruner.prune(1.0)
    assert pruner.masks()["weight"][0].tolist() == [True, True, False, False, False, False]


def test_what_one_task_has_shown_stays_in_the_steps_of_another() -> None:
    pruner = gathered(HighestRank(tasks=TASKS), SQUARES)
    fisher = pruner.targets[0].module.get_buffer("weight_fisher")
    # Each is a mean with a decay of a half, after one step of its own task.
    torch.testing.assert_close(fisher, torch.tensor(SQUARES)[:, None] / 2)


def test_each_task_has_its_own_movement_from_the_same_start() -> None:
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, 3.0]])
    pruner = Movement(
        budget=CountBudget(count=1), score_learning_rate=0.5, by_task=MeanRank(tasks=TASKS)
    )
    pruner.prepare(layer)
    layer.weight.grad = torch.tensor([[1.0, -1.0]])
    pruner.note_tasks(["second"])
    pruner.before_step()
    pruner.after_step()
    # |w| over its mean; then Adam's first step, of the learning rate, against w * dL/dw.
    expected = torch.tensor([[[0.5, 1.5]], [[0.0, 2.0]]])
    torch.testing.assert_close(layer.get_buffer("weight_scores"), expected)


@pytest.mark.parametrize("by_task", BOTH)
def test_one_task_alone_ranks_units_as_without(by_task: type[ByTask]) -> None:
    found = []
    alone: dict[str, Any] = {}
    for options in (alone, alone | {"by_task": by_task(tasks=TASKS)}):
        model = Network()
        budget, importance = FractionBudget(fraction=0.4), GateFisher(smoothing=0.5)
        pruner = Structured(budget=budget, importance=importance, **options)
        pruner.prepare(model, model.encoder)
        for number in range(3):
            model.zero_grad()
            loss_of(model, number).backward()  # type: ignore[no-untyped-call]
            pruner.note_tasks(TASKS[1:])
            pruner.before_step()
            pruner.after_step()
        pruner.prune(1.0)
        found.append({path: mask.tolist() for path, mask in pruner.masks().items()})
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ({"first", "second"}, "one is of first, second: neither accumulate gradients nor share"),
        (set(), "one is of none that was noted"),
        ({"third"}, "of first, second, but one is of third"),
    ],
)
def test_a_step_that_is_not_of_one_known_task_is_refused(tasks: set[str], said: str) -> None:
    layer = nn.Linear(6, 1, bias=False)
    pruner = Fisher(budget=CountBudget(count=2), by_task=HighestRank(tasks=TASKS))
    pruner.prepare(layer)
    gradual = GradualPruning(pruner, LinearSchedule(start=0, stop=1), total_steps=2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    gradual.attach(optimizer)
    layer(torch.ones(6)).backward()
    gradual.tasks |= tasks
    with pytest.raises(NotReadyError, match=said) as refusal:
        optimizer.step()
    assert "\n" not in str(refusal.value)


def test_tasks_that_nobody_names_are_refused() -> None:
    pruner = Fisher(budget=FractionBudget(fraction=0.5), by_task=MeanRank())
    with pytest.raises(ValueError, match="Linear has none that are known: name them"):
        pruner.prepare(nn.Linear(3, 3))


def test_importance_that_reads_no_gradients_has_no_tasks() -> None:
    with pytest.raises(ValueError, match="WeightMagnitude reads none: leave it out"):
        Structured(
            budget=FractionBudget(fraction=0.4), importance=WeightMagnitude(), by_task=MeanRank()
        )


def test_two_pruners_that_are_combined_are_both_told_the_task() -> None:
    model = Network()
    pruner = Combined(
        budget=FractionBudget(fraction=0.25),
        structured=partial(
            Structured, importance=GateFisher(smoothing=0.5), by_task=HighestRank(tasks=TASKS)
        ),
        element_wise=partial(Movement, score_learning_rate=0.01, by_task=MeanRank(tasks=TASKS)),
    )
    pruner.prepare(model, model.encoder)
    optimizer = adamw(model.parameters())
    driver_of(pruner, optimizer)
    for step in range(TOTAL_STEPS):
        one_step(model, optimizer, step)
    pruner.finalize()
    assert pruner.ledger().kept_in("encoder_linear") == WEIGHTS // 4
