"""What may go of an encoder, what it costs and what is kept, and scores that compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from multiprune.pruning.importance import Scores, relative_to_layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.models.nested import LayerOrder

HEADS, HEAD_DIMENSIONS, NEURONS, LAYERS = "heads", "head_dimensions", "neurons", "layers"
GRANULARITIES = (HEADS, HEAD_DIMENSIONS, NEURONS, LAYERS)


@dataclass(frozen=True)
class UnitCosts:
    """What the units of one layer cost, in parameters that the budget counts.

    Attributes:
        head_dimension: one dimension of one head: of its query and key, and of its value.
        neuron: one neuron of the feed-forward network.
        rest: what goes besides when the whole layer goes (biases of its outputs, norms off
            the residual stream).
    """

    head_dimension: int
    neuron: int
    rest: int

    def of(self, heads: int, dimensions: int, neurons: int) -> int:
        """Return the size of a layer with so many heads, dimensions of each, and neurons."""
        return heads * dimensions * self.head_dimension + neurons * self.neuron + self.rest


@dataclass
class Kept:
    """What is kept of one layer: masks, changed in place.

    All heads that are kept have the same number of dimensions, so that attention stays one batched
    product.

    Attributes:
        heads: of each head.
        query_key: of its query and key, whether the head is kept or not.
        value: of its value, whether the head is kept or not.
        neurons: of each neuron.
    """

    heads: Bool[Tensor, "heads"]
    query_key: Bool[Tensor, "heads head_size"]
    value: Bool[Tensor, "heads head_size"]
    neurons: Bool[Tensor, "neurons"]

    @property
    def dimensions(self) -> int:
        """The number of dimensions that each head keeps."""
        return int(self.value[0].count_nonzero())

    @property
    def dropped(self) -> bool:
        """Whether the whole layer is gone."""
        return not bool(self.heads.any())

    def leave(self, order: LayerOrder, removals: int) -> None:
        """Remove what the first ``removals`` of an order take."""
        self.heads &= order.heads >= removals
        self.query_key &= order.query_key >= removals
        self.value &= order.value >= removals
        self.neurons &= order.neurons >= removals

    def size(self, costs: UnitCosts) -> int:
        """Return the number of parameters that the budget counts in this layer."""
        if self.dropped:
            return 0
        heads, neurons = int(self.heads.count_nonzero()), int(self.neurons.count_nonzero())
        return costs.of(heads, self.dimensions, neurons)


def largest_unit(
    costs: Sequence[UnitCosts], kept: Sequence[Kept], granularity: Sequence[str]
) -> int:
    """Return the most parameters that one removal may take once nothing larger fits.

    Of a layer that may go that is its smallest size: before, its units go.
    """
    found = []
    for one, cost in zip(kept, costs, strict=True):
        heads, dimensions = len(one.heads), one.dimensions
        by_kind = {
            HEADS: dimensions * cost.head_dimension,
            HEAD_DIMENSIONS: heads * cost.head_dimension,
            NEURONS: cost.neuron,
            LAYERS: smallest_size([cost], [one], granularity),
        }
        found += [by_kind[kind] for kind in granularity]
    return max(found)


def smallest_size(
    costs: Sequence[UnitCosts], kept: Sequence[Kept], granularity: Sequence[str]
) -> int:
    """Return the number of parameters left when everything has gone that may go.

    Which layer stays is known only when it is the last, so it counts as the largest.
    """
    sizes = [
        cost.of(
            1 if HEADS in granularity else len(one.heads),
            1 if HEAD_DIMENSIONS in granularity else one.dimensions,
            1 if NEURONS in granularity else len(one.neurons),
        )
        for one, cost in zip(kept, costs, strict=True)
    ]
    return max(sizes) if LAYERS in granularity else sum(sizes)


def relative_scores(scores: Sequence[Scores], kept: Sequence[Kept]) -> list[Scores]:
    """Return scores relative to what is kept of their layer and kind; of layers, to all layers."""
    alive = torch.tensor([not one.dropped for one in kept])
    layers = relative_to_layer(torch.stack([one.layer for one in scores]), alive)
    return [
        Scores(
            heads=relative_to_layer(score.heads, here.heads),
            query_key=relative_to_layer(score.query_key, here.query_key & here.heads[:, None]),
            value=relative_to_layer(score.value, here.value & here.heads[:, None]),
            neurons=relative_to_layer(score.neurons, here.neurons),
            layer=layer,
        )
        for score, here, layer in zip(scores, kept, layers, strict=True)
    ]


def scores_per_parameter(
    scores: Sequence[Scores], kept: Sequence[Kept], costs: Sequence[UnitCosts]
) -> list[Scores]:
    """Return losses divided by the parameters that removing the unit saves."""
    return [
        Scores(
            heads=score.heads / max(1, here.dimensions * cost.head_dimension),
            # A dimension goes with its query and key and with its value: the mean of the two is
            # taken, and their sum is what is lost.
            query_key=2 * score.query_key / max(1, cost.head_dimension),
            value=2 * score.value / max(1, cost.head_dimension),
            neurons=score.neurons / max(1, cost.neuron),
            layer=score.layer / max(1, here.size(cost)),
        )
        for score, here, cost in zip(scores, kept, costs, strict=True)
    ]
