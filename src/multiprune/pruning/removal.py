"""Candidates for removal, their costs, and comparable scores."""

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

HEADS, HEAD_DIMENSIONS, NEURONS = "heads", "head_dimensions", "neurons"
BLOCKS, LAYERS = "blocks", "layers"
#: Kinds of units of a layer, or of layers.
GRANULARITIES = (HEADS, HEAD_DIMENSIONS, NEURONS, BLOCKS, LAYERS)
#: What is of no layer: hidden dimensions go everywhere at once.
HIDDEN = "hidden"

#: The two blocks of a layer, in the order in which what is said of both is put.
ATTENTION, FEED_FORWARD = 0, 1


@dataclass(frozen=True)
class UnitCosts:
    """What the units of one layer cost, in parameters that the budget counts.

    Attributes:
        head_dimension: one dimension of one head: of its query and key, and of its value.
        neuron: one neuron of the feed-forward network.
        rest: what goes besides when the whole layer goes (norms off the residual stream).
        attention: what goes besides when the attention goes (the bias of its output, norms in it).
        feed_forward: what goes besides when the feed-forward network goes (likewise).
    """

    head_dimension: int
    neuron: int
    rest: int
    attention: int = 0
    feed_forward: int = 0

    def of(self, heads: int, dimensions: int, neurons: int) -> int:
        """Return the size of a layer with so many heads, dimensions of each, and neurons.

        Without heads its attention is gone, without neurons its feed-forward network.
        """
        blocks = self.of_blocks(heads, dimensions, neurons)
        return sum(blocks) + self.rest * any(blocks)

    def of_blocks(self, heads: int, dimensions: int, neurons: int) -> tuple[int, int]:
        """Return the size of the attention, and of the feed-forward network."""
        attention = heads * dimensions * self.head_dimension + self.attention * (heads > 0)
        return attention, neurons * self.neuron + self.feed_forward * (neurons > 0)


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
        return not self.blocks.any()

    @property
    def blocks(self) -> Bool[Tensor, "2"]:
        """Whether the attention and the feed-forward network are there."""
        return torch.stack([self.heads.any(), self.neurons.any()])

    def leave(self, order: LayerOrder, removals: int) -> None:
        """Remove what the first ``removals`` of an order take."""
        self.heads &= order.heads >= removals
        self.query_key &= order.query_key >= removals
        self.value &= order.value >= removals
        self.neurons &= order.neurons >= removals

    def size(self, costs: UnitCosts) -> int:
        """Return the number of parameters that the budget counts in this layer."""
        return costs.of(*self._counts())

    def block_sizes(self, costs: UnitCosts) -> tuple[int, int]:
        """Return the number of parameters in the attention, and in the feed-forward network."""
        return costs.of_blocks(*self._counts())

    def _counts(self) -> tuple[int, int, int]:
        heads, neurons = int(self.heads.count_nonzero()), int(self.neurons.count_nonzero())
        return heads, self.dimensions, neurons

    def smallest_blocks(self, costs: UnitCosts, granularity: Sequence[str]) -> tuple[int, int]:
        """Return the size of each block when all units have gone that may, but not the block."""
        return costs.of_blocks(
            1 if HEADS in granularity else len(self.heads),
            1 if HEAD_DIMENSIONS in granularity else self.dimensions,
            min(1, len(self.neurons)) if NEURONS in granularity else len(self.neurons),
        )


def largest_unit(
    costs: Sequence[UnitCosts], kept: Sequence[Kept], granularity: Sequence[str]
) -> int:
    """Return the most parameters that one removal may take once nothing larger fits.

    Of a layer or a block that may go that is its smallest size: before, its units go. It is 0 where
    no units may go.
    """
    found = []
    for one, cost in zip(kept, costs, strict=True):
        heads, dimensions = len(one.heads), one.dimensions
        by_kind = {
            HEADS: dimensions * cost.head_dimension,
            HEAD_DIMENSIONS: heads * cost.head_dimension,
            NEURONS: cost.neuron,
            BLOCKS: cost.rest + max(one.smallest_blocks(cost, granularity)),
            LAYERS: smallest_size([cost], [one], granularity),
        }
        found += [by_kind[kind] for kind in granularity]
    return max(found, default=0)


def smallest_size(
    costs: Sequence[UnitCosts], kept: Sequence[Kept], granularity: Sequence[str]
) -> int:
    """Return the number of parameters left when everything has gone that may go.

    Which layer stays, or which block, is known only when it is the last, so it counts as the
    largest.
    """
    pairs = list(zip(kept, costs, strict=True))
    blocks = [one.smallest_blocks(cost, granularity) for one, cost in pairs]
    of_layer = max if BLOCKS in granularity else sum
    sizes = [of_layer(two) + cost.rest for two, (_, cost) in zip(blocks, pairs, strict=True)]
    return max(sizes) if {LAYERS, BLOCKS} & set(granularity) else sum(sizes)


def relative_scores(scores: Sequence[Scores], kept: Sequence[Kept]) -> list[Scores]:
    """Return scores relative to what is kept of their layer and kind.

    Those of blocks and of layers are relative to all of their kind.
    """
    there = torch.stack([one.blocks for one in kept])
    blocks = relative_to_layer(torch.stack([one.blocks for one in scores]), there)
    layers = relative_to_layer(torch.stack([one.layer for one in scores]), there.any(1))
    return [
        Scores(
            heads=relative_to_layer(score.heads, here.heads),
            query_key=relative_to_layer(score.query_key, here.query_key & here.heads[:, None]),
            value=relative_to_layer(score.value, here.value & here.heads[:, None]),
            neurons=relative_to_layer(score.neurons, here.neurons),
            blocks=two,
            layer=layer,
        )
        for score, here, two, layer in zip(scores, kept, blocks, layers, strict=True)
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
            blocks=score.blocks / torch.tensor(here.block_sizes(cost)).clamp(min=1),
            layer=score.layer / max(1, here.size(cost)),
        )
        for score, here, cost in zip(scores, kept, costs, strict=True)
    ]
