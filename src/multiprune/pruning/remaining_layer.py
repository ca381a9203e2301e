"""The remaining units of a layer during a greedy removal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from multiprune.models.nested import LayerOrder
from multiprune.pruning.removal import (
    ATTENTION,
    BLOCKS,
    FEED_FORWARD,
    GRANULARITIES,
    HEAD_DIMENSIONS,
    HEADS,
    LAYERS,
    NEURONS,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.pruning.importance import Scores
    from multiprune.pruning.removal import Kept, UnitCosts


@dataclass(frozen=True)
class Candidate:
    """A unit that may go, a block or a layer, or, of dimensions, one of every head of a layer."""

    score: float
    kind: str
    layer: int
    index: int


class RemainingLayer:
    """What one layer has left while candidates are walked through, and when the others went.

    Dimensions are counted: which of each head go depends on how many.
    """

    def __init__(self, kept: Kept, costs: UnitCosts) -> None:
        self.kept, self.costs = kept, costs
        #: Of each block, whether it is there, and how many units it has or would have.
        self.open = [True, True]
        self.units = [int(kept.heads.count_nonzero()), int(kept.neurons.count_nonzero())]
        self.dimensions = kept.dimensions
        #: By kind: which removal took what, or, of dimensions, one of every head.
        self.gone: dict[str, dict[int, int]] = {kind: {} for kind in GRANULARITIES}

    @property
    def heads(self) -> int:
        """The number of heads that are left."""
        return self.units[ATTENTION] * self.open[ATTENTION]

    @property
    def neurons(self) -> int:
        """The number of neurons that are left."""
        return self.units[FEED_FORWARD] * self.open[FEED_FORWARD]

    @property
    def dropped(self) -> bool:
        """Whether nothing is left."""
        return not self.heads and not self.neurons

    @property
    def size(self) -> int:
        """The parameters that are left."""
        return self.costs.of(self.heads, self.dimensions, self.neurons)

    @property
    def spare_neurons(self) -> int:
        """The parameters of all neurons but one."""
        return max(0, self.neurons - 1) * self.costs.neuron

    def saving(self, candidate: Candidate) -> int:
        """Return what a block, a head, a neuron or a dimension saves.

        That is 0 if it is gone, or the last of its block.
        """
        kind = candidate.kind
        if kind == BLOCKS:
            return self.size - self._size_without(candidate.index)
        left = {HEADS: self.heads, NEURONS: self.neurons, HEAD_DIMENSIONS: self.dimensions}[kind]
        if left <= 1 or candidate.index in self.gone[kind]:
            return 0
        return self._cost(kind)

    def cost_to_restore(self, candidate: Candidate) -> int:
        """Return what a unit or a block that went would cost, 0 if it cannot come back alone."""
        if candidate.kind == BLOCKS and not self.gone[LAYERS]:
            return self._size_with(candidate.index) - self._size_without(candidate.index)
        left = {HEADS: self.heads, NEURONS: self.neurons}.get(candidate.kind, 0)
        return self._cost(candidate.kind) if left else 0

    def remove(self, candidate: Candidate, number: int) -> None:
        """Remove a head, a neuron, a dimension of every head, a block, or the whole layer."""
        self._count(candidate, -1)
        self.gone[candidate.kind][candidate.index] = number

    def restore(self, candidate: Candidate) -> None:
        """Count a head, a neuron or a block that went again."""
        self._count(candidate, 1)

    def _cost(self, kind: str) -> int:
        if kind == NEURONS:
            return self.costs.neuron
        return self.costs.head_dimension * (self.dimensions if kind == HEADS else self.heads)

    def _size_without(self, block: int) -> int:
        heads, neurons = (0, self.neurons) if block == ATTENTION else (self.heads, 0)
        return self.costs.of(heads, self.dimensions, neurons)

    def _size_with(self, block: int) -> int:
        units = [self.heads, self.neurons]
        units[block] = self.units[block]
        return self.costs.of(units[ATTENTION], self.dimensions, units[FEED_FORWARD])

    def _count(self, candidate: Candidate, change: int) -> None:
        kind = candidate.kind
        self.units[ATTENTION] += change * (kind == HEADS)
        self.units[FEED_FORWARD] += change * (kind == NEURONS)
        self.dimensions += change * (kind == HEAD_DIMENSIONS)
        if kind == BLOCKS:
            self.open[candidate.index] = change > 0
        elif kind == LAYERS:
            self.open = [False, False]

    def order(self, score: Scores) -> LayerOrder:
        """Return when each unit goes; what had gone before has -1."""
        here, never = self.kept, torch.iinfo(torch.int32).max
        heads, query_key, value, neurons = (
            torch.where(mask, never, -1).int()
            for mask in (here.heads, here.query_key, here.value, here.neurons)
        )
        for positions, kind in ((heads, HEADS), (neurons, NEURONS)):
            gone = self.gone[kind]
            positions[torch.tensor(list(gone), dtype=torch.long)] = torch.tensor(
                list(gone.values()), dtype=torch.int32
            )
            block = self.gone[BLOCKS].get(ATTENTION if kind == HEADS else FEED_FORWARD, never)
            positions.clamp_(max=min(block, self.gone[LAYERS].get(0, never)))
        for positions, scores, mask in (
            (query_key, score.query_key, here.query_key),
            (value, score.value, here.value),
        ):
            _place_dimensions(positions, scores, mask, sorted(self.gone[HEAD_DIMENSIONS].values()))
        return LayerOrder(heads, query_key, value, neurons)


def _place_dimensions(
    positions: Int32[Tensor, "heads head_size"],
    scores: Float[Tensor, "heads head_size"],
    kept: Bool[Tensor, "heads head_size"],
    removals: Sequence[int],
) -> None:
    """Note in each head which removal takes its lowest score, its next, ...; ties by position.

    All heads have as many dimensions.
    """
    masked = scores.float().masked_fill(~kept, -torch.inf)
    order = masked.sort(dim=1, descending=True, stable=True).indices
    left = int(kept[0].count_nonzero())
    for count, removal in enumerate(removals, start=1):
        positions.scatter_(1, order[:, left - count, None], removal)
