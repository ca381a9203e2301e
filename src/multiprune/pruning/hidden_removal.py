"""How many hidden dimensions go at a ranking, before the units that go with them."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from multiprune.pruning.removal import BLOCKS, HEAD_DIMENSIONS, HEADS, LAYERS, NEURONS
from multiprune.pruning.removal_order import dimension_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from multiprune.pruning.importance import Scores
    from multiprune.pruning.prunable_sizes import PrunableSizes
    from multiprune.pruning.removal import Kept


def remove_hidden(
    hidden_scores: Float[Tensor, "hidden"],
    mask: Bool[Tensor, "hidden"],
    scores: Sequence[Scores],
    kept: Sequence[Kept],
    sizes: PrunableSizes,
    *,
    size: int,
) -> None:
    """Remove from ``mask`` the dimensions that matter least, as many as ``hidden_to_remove`` says.

    Args:
        hidden_scores: comparable with those of units.
        mask: of the dimensions that are kept, changed in place.
        scores: of units, by layer.
        kept: units, by layer.
        sizes: of what may go.
        size: what may be left of it.
    """
    pairs = zip(scores, kept, strict=True)
    ranked = [RankedUnits(*pair, sizes.kinds) for pair in pairs]

    def size_above(score: float, left: int) -> int:
        costs = zip(ranked, sizes.units.at(left), strict=True)
        units = (cost.of(*layer.counts_above(score)) for layer, cost in costs)
        return sizes.besides(left) + sum(units)

    order = hidden_scores.masked_fill(~mask, torch.inf).sort(stable=True)
    values = order.values[: int(mask.count_nonzero())].tolist()
    removed = hidden_to_remove(values, size_above, lambda left: sizes.smallest(kept, left), size)
    mask[order.indices[:removed]] = False


def hidden_to_remove(
    ranked: Sequence[float],
    size_above: Callable[[float, int], int],
    smallest: Callable[[int], int],
    size: int,
) -> int:
    """Return how many hidden dimensions go, so that the units that are left can fill ``size``.

    All that may go is in one ranking, and costs are products: a dimension costs what is left of
    units, and these what is left of dimensions. From the bottom of the ranking, dimensions go while
    what is above them has ``size`` at least. So many have gone when the units below have gone, too,
    and what is left of ``size`` is to be met by units alone, whose costs are fixed then: what makes
    units meet a budget does so here. Where units cannot be as few as that asks for, or none may go,
    further dimensions do until the smallest size fits.

    Args:
        ranked: scores of the dimensions that are there, the lowest first.
        size_above: what is left of all with the units whose scores are not below a score, and so
            many dimensions.
        smallest: what is left with so many dimensions when all units have gone that may.
        size: what may be left.
    """
    count = len(ranked)
    removed = bisect_left(
        range(1, count),
        True,
        key=lambda number: size_above(ranked[number - 1], count - number) < size,
    )
    while removed < count - 1 and smallest(count - removed) > size:
        removed += 1
    return removed


class RankedUnits:
    """The scores of one layer's units that may go, in order, to count those above a score."""

    def __init__(self, scores: Scores, kept: Kept, granularity: Sequence[str]) -> None:
        self.kept = kept
        heads, neurons = (
            one[mask].sort().values.tolist()
            for one, mask in ((scores.heads, kept.heads), (scores.neurons, kept.neurons))
        )
        may_narrow = HEAD_DIMENSIONS in granularity and bool(kept.heads.any())
        dimensions = dimension_scores(scores, kept) if may_narrow else []
        self.scores = {HEADS: heads, NEURONS: neurons, HEAD_DIMENSIONS: dimensions}
        self.counts = {kind: len(found) for kind, found in self.scores.items()}
        self.counts[HEAD_DIMENSIONS] = kept.dimensions
        self.granularity = granularity
        self.blocks, self.layer = scores.blocks.tolist(), float(scores.layer)

    def counts_above(self, score: float) -> tuple[int, int, int]:
        """Return the numbers of heads, dimensions of each and neurons not below a score."""
        heads, dimensions, neurons = (
            self._count(kind, score) for kind in (HEADS, HEAD_DIMENSIONS, NEURONS)
        )
        blocks = [BLOCKS not in self.granularity or one >= score for one in self.blocks]
        is_there = LAYERS not in self.granularity or self.layer >= score
        return heads * (is_there and blocks[0]), dimensions, neurons * (is_there and blocks[1])

    def _count(self, kind: str, score: float) -> int:
        """Count what is left of a kind; one stays of what is there."""
        count, found = self.counts[kind], self.scores[kind]
        if kind not in self.granularity or not found:
            return count
        return max(1, count - bisect_left(found, score))
