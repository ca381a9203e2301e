"""Gates without noise by hand, as FLOP's authors do it, and that none that is kept is closed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_encoders import tiny_encoder
from torch import Tensor, nn

from multiprune.budget import FractionBudget
from multiprune.pruning.evaluation_gates import FlopGates, LouizosGates, soft_gates
from multiprune.pruning.hard_concrete import open_probability
from multiprune.pruning.low_rank import LowRankL0
from multiprune.pruning.structured_l0 import StructuredL0

if TYPE_CHECKING:
    from multiprune.pruning.evaluation_gates import EvaluationGates

SETTINGS: dict[str, Any] = {
    "budget": FractionBudget(fraction=0.5),
    "drop_rate": 0.05,
    "gate_learning_rate": 0.1,
    "multiplier_learning_rate": 0.1,
}
either = pytest.mark.parametrize(
    "evaluation", [LouizosGates(), FlopGates()], ids=["Louizos", "FLOP"]
)


def authors(log_alpha: Tensor, beta: float) -> Tensor:
    """Return the gates of one vector as in asappresearch/flop."""
    size = len(log_alpha)
    expected_closed = size - float(torch.sigmoid(log_alpha - beta * math.log(0.1 / 1.1)).sum())
    closed = round(expected_closed)
    soft = torch.sigmoid(log_alpha / beta * 0.8)
    if closed > 0:
        _, indices = torch.topk(soft, k=closed, largest=False)
        soft[indices] = 0.0
    return soft


def test_flop_gates_are_those_of_the_authors_vector_by_vector() -> None:
    generator = torch.Generator().manual_seed(0)
    log_alpha = 4 * torch.randn(30, generator=generator, dtype=torch.float64) - 1
    counts = [12, 1, 17]
    found = FlopGates().estimated(log_alpha, counts)
    expected = torch.cat([authors(one.clone(), 2 / 3) for one in torch.split(log_alpha, counts)])
    torch.testing.assert_close(found, expected)
    assert 0 < int((found == 0).sum()) < 30


def test_soft_gate_by_hand() -> None:
    # 0.8 / (2 / 3) is 1.2, and 11^(1 / 1.2) has the log alpha of odds of 11.
    odds = torch.tensor([1.0, 11 ** (1 / 1.2), 11 ** (-1 / 1.2)]).log()
    assert soft_gates(odds).tolist() == pytest.approx([1 / 2, 11 / 12, 1 / 12])


def test_equal_gates_close_as_many_as_expected() -> None:
    log_alpha = torch.full((10,), math.log(0.1))
    expected = 10 - float(open_probability(log_alpha).sum())
    closed = FlopGates().estimated(log_alpha, [10]) == 0
    assert closed.sum().item() == round(expected) == 7


@either
def test_kept_gates_are_above_zero_and_those_that_evaluation_opens_are_as_it_has_them(
    evaluation: EvaluationGates,
) -> None:
    log_alpha = torch.linspace(-6.5, 4.5, 100)
    folded, estimated = evaluation.folded(log_alpha), evaluation.estimated(log_alpha, [100])
    assert (folded > 0).all()
    assert 0 < int((estimated == 0).sum()) < 100
    assert torch.equal(folded[estimated > 0], estimated[estimated > 0])


def closed_by_chance(pruner: LowRankL0 | StructuredL0) -> None:
    """Have all gates learn that they had better be closed, which the budget does not allow."""
    pruner.prune(0.5)
    for vector in pruner.gates.log_alpha():
        vector.copy_(torch.linspace(-5, -3, len(vector)))


@either
def test_ranks_that_are_kept_are_not_zero(evaluation: EvaluationGates) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 5))
    pruner = LowRankL0(**SETTINGS, evaluation_gates=evaluation)
    pruner.prepare(model)
    closed_by_chance(pruner)
    pruner.prune(1.0)
    for target in pruner.targets:
        up, down = target.factors()
        assert torch.equal(up.any(0), target.mask)
        assert torch.equal(down.any(0), target.mask)


@either
def test_units_that_are_kept_are_not_zero(evaluation: EvaluationGates) -> None:
    encoder = tiny_encoder("bert")
    pruner = StructuredL0(**SETTINGS, evaluation_gates=evaluation)
    pruner.prepare(encoder)
    closed_by_chance(pruner)
    pruner.prune(1.0)
    some = 0
    for layer, state in zip(pruner.layers, pruner.states, strict=True):
        units = state.units()
        for kind, output in layer.outputs():
            assert torch.equal(output.weight.any(0), units[kind])
            some += int(units[kind].sum())
    assert some


def test_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`evaluation_gates` .*FlopGates\(\)"):
        LowRankL0(**SETTINGS | {"evaluation_gates": "flop"})
