"""Magnitude pruning, by hand and against ``torch.nn.utils.prune``."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from multiprune.budget import CountBudget, FractionBudget
from multiprune.pruning.magnitude import Magnitude


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5))


def linear(model: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in model if isinstance(layer, nn.Linear)]


def test_weights_nearest_to_zero_go_first() -> None:
    layer = nn.Linear(3, 2)
    layer.weight.data = torch.tensor([[0.1, -5.0, 2.0], [-0.2, 3.0, -0.3]])
    pruner = Magnitude(budget=CountBudget(count=2))
    pruner.prepare(layer)
    pruner.prune(0.5)
    assert layer.weight.tolist() == torch.tensor([[0, -5.0, 2.0], [0, 3.0, -0.3]]).tolist()
    pruner.prune(1.0)
    assert layer.weight.tolist() == [[0, -5.0, 0], [0, 3.0, 0]]
    assert pruner.masks()["weight"].tolist() == [[False, True, False], [False, True, False]]


@pytest.mark.parametrize("fraction", [0.125, 0.25, 0.5])
def test_global_ranking_is_that_of_torch(fraction: float) -> None:
    model = layers()
    reference = copy.deepcopy(model)
    pruner = Magnitude(budget=FractionBudget(fraction=fraction))
    pruner.prepare(model)
    pruner.prune(1.0)
    prune.global_unstructured(
        [(layer, "weight") for layer in linear(reference)],
        pruning_method=prune.L1Unstructured,
        amount=88 - int(88 * fraction),
    )
    for ours, theirs in zip(linear(model), linear(reference), strict=True):
        assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("fraction", [0.125, 0.25, 0.5])
def test_ranking_per_layer_is_that_of_torch(fraction: float) -> None:
    model = layers()
    reference = copy.deepcopy(model)
    pruner = Magnitude(budget=FractionBudget(fraction=fraction), per_layer=True)
    pruner.prepare(model)
    pruner.prune(1.0)
    for ours, theirs in zip(linear(model), linear(reference), strict=True):
        size = theirs.weight.numel()
        amount = size - int(size * fraction)
        prune.l1_unstructured(theirs, "weight", amount=amount)  # type: ignore[no-untyped-call]
        assert torch.equal(ours.weight, theirs.weight)


def test_pruned_weight_never_comes_back() -> None:
    model = layers()
    pruner = Magnitude(budget=FractionBudget(fraction=0.25))
    pruner.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    inputs = torch.randn(16, 6)
    kept = {path: mask.clone() for path, mask in pruner.masks().items()}
    for step in range(1, 11):
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        pruner.before_step()
        optimizer.step()
        pruner.after_step()
        pruner.prune(step / 10)
        for path, mask in pruner.masks().items():
            assert not (mask & ~kept[path]).any()
            kept[path] = mask.clone()
