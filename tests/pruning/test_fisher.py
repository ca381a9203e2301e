"""Optimal brain damage by hand, and against the rise of a quadratic loss."""

from __future__ import annotations

import pytest
import torch
from structured_world import Network, loss_of
from torch import nn

from multiprune.budget import CountBudget, FractionBudget
from multiprune.pruning.fisher import Fisher, saliency
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.schedule import LinearSchedule


def test_saliency_is_the_rise_of_a_quadratic_loss() -> None:
    weight, curvature = torch.tensor([0.5, -2.0, 3.0]), torch.tensor([4.0, 0.25, 0.0])
    optimum = weight.clone()

    def loss(at: torch.Tensor) -> torch.Tensor:
        return (curvature * (at - optimum) ** 2 / 2).sum()

    rises = []
    for place in range(3):
        pruned = weight.clone()
        pruned[place] = 0
        rises.append(loss(pruned) - loss(weight))
    assert saliency(weight, curvature).tolist() == torch.stack(rises).tolist() == [0.5, 0.5, 0]


def test_weights_that_the_loss_does_not_feel_go_first() -> None:
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, 10.0], [2.0, 3.0]])
    pruner = Fisher(budget=CountBudget(count=2), decay=0.5)
    pruner.prepare(layer)
    for gradient in ([[8.0, 0.0], [2.0, 1.0]], [[4.0, 0.5], [0.0, -1.0]]):
        layer.weight.grad = torch.tensor(gradient)
        pruner.before_step()
        pruner.after_step()
    # 0.25 * first**2 + 0.5 * second**2, and its halves times w**2.
    fisher = torch.tensor([[24.0, 0.125], [1.0, 0.75]])
    assert torch.equal(pruner.targets[0].buffer("fisher"), fisher)
    assert pruner.scores()[0].tolist() == [[12, 6.25], [2, 3.375]]
    pruner.prune(1.0)
    assert pruner.masks()["weight"].tolist() == [[True, True], [False, False]]


def test_the_mean_is_of_the_gradients_that_the_optimizer_was_given() -> None:
    """As Adam keeps it, but for its correction of the first steps, which is one for all weights."""
    torch.manual_seed(0)
    model = Network().train()
    pruner = Fisher(budget=FractionBudget(fraction=0.4), decay=0.9)
    pruner.prepare(model, model.encoder)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.9))
    gradual = GradualPruning(
        pruner, LinearSchedule(start=0.2, stop=0.8), total_steps=5, every_n_steps=1
    )
    gradual.attach(optimizer)
    for number in range(4):
        optimizer.zero_grad()
        loss_of(model, number).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    for target in pruner.targets:
        theirs = optimizer.state[getattr(target.module, target.name)]["exp_avg_sq"]
        torch.testing.assert_close(target.buffer("fisher"), theirs)
    frozen = [target.buffer("fisher").clone() for target in pruner.targets]
    optimizer.step()
    assert all(
        torch.equal(target.buffer("fisher"), before)
        for target, before in zip(pruner.targets, frozen, strict=True)
    )


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan"), True])
def test_a_decay_that_keeps_everything_or_nothing_sensible_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        Fisher(budget=FractionBudget(fraction=0.5), decay=decay)
