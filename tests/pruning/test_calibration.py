"""Units whose importance was attributed before: which of them stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from structured_world import HEAD, NEURON, WEIGHTS, Network
from tiny_encoders import HEAD_SIZE, HEADS_PER_LAYER, INTERMEDIATE

from multiprune.budget import CountBudget
from multiprune.pruning.calibration import Attributed
from multiprune.pruning.importance import Scores
from multiprune.pruning.removal import HEADS, NEURONS
from multiprune.pruning.structured import Structured

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Of each head in one layer, and of each neuron, all different.
HEAD_SCORES = torch.tensor([4.0, 1.0, 3.0, 2.0])
NEURON_SCORES = torch.arange(1.0, INTERMEDIATE + 1)


def scores(*, heads: float, neurons: float) -> Scores:
    """Return scores of a layer, so many times those above."""
    dimensions = torch.ones(HEADS_PER_LAYER, HEAD_SIZE)
    units = (heads * HEAD_SCORES, dimensions, dimensions, neurons * NEURON_SCORES)
    return Scores(*units, blocks=torch.ones(2), layer=torch.ones(()))


def gone(
    attributed: Attributed, *, parameters: int, granularity: Sequence[str]
) -> dict[str, list[list[int]]]:
    """Return which heads and neurons of each layer have gone, for so many parameters fewer."""
    model = Network()
    budget = CountBudget(count=WEIGHTS - parameters)
    pruner = Structured(budget=budget, importance=attributed, granularity=granularity)
    pruner.prepare(model, model.encoder)
    pruner.prune(1.0)
    kept = [state.kept() for state in pruner.states]
    return {
        kind: [(~getattr(one, kind)).nonzero()[:, 0].tolist() for one in kept]
        for kind in granularity
    }


@pytest.mark.parametrize(
    ("per_parameter", "heads", "neurons"),
    [
        # All of the second layer are a tenth of those of the first.
        (True, [[], [1, 3]], [[], [0, 1, 2, 3]]),
        # Within their layers, units of both are alike.
        (False, [[1], [1]], [[0, 1], [0, 1]]),
    ],
)
def test_what_matters_least_goes_of_all_or_within_each_layer(
    per_parameter: bool, heads: list[list[int]], neurons: list[list[int]]
) -> None:
    by_layer = [scores(heads=10, neurons=10), scores(heads=1, neurons=1)]
    attributed = Attributed(by_layer, per_parameter=per_parameter)
    assert gone(attributed, parameters=2 * HEAD, granularity=[HEADS]) == {HEADS: heads}
    assert gone(attributed, parameters=4 * NEURON, granularity=[NEURONS]) == {NEURONS: neurons}


def test_heads_and_neurons_compare_by_what_they_cost() -> None:
    # A head costs as much as 16 neurons: for that many parameters, heads of the first layer
    # contribute 5.5, 1.375, 4.125 and 2.75, those of the second more, and neurons of both 1 to 24.
    by_layer = [scores(heads=22, neurons=1), scores(heads=100, neurons=1)]
    attributed = Attributed(by_layer, per_parameter=True)
    both = gone(attributed, parameters=2 * HEAD + 4 * NEURON, granularity=[HEADS, NEURONS])
    assert both == {HEADS: [[1, 3], []], NEURONS: [[0, 1], [0, 1]]}
