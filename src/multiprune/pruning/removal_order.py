"""In which order units go: the least important first, until all fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from multiprune.models.nested import LayerOrder, RemovalOrder
from multiprune.pruning.removal import GRANULARITIES, HEAD_DIMENSIONS, HEADS, LAYERS, NEURONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from multiprune.pruning.importance import Scores
    from multiprune.pruning.removal import Kept, UnitCosts


def remove_least_important(
    scores: Sequence[Scores],
    kept: Sequence[Kept],
    costs: Sequence[UnitCosts],
    *,
    size: int,
    granularity: Sequence[str],
) -> None:
    """Remove from ``kept`` what matters least, one by one, until no more than ``size`` is left.

    What is gone stays gone. What goes last may overshoot: less than one group is left unused.

    Args:
        scores: by layer, comparable between layers and kinds, as ``relative_scores`` and
            ``scores_per_parameter`` make them.
        kept: by layer.
        costs: by layer.
        size: parameters that may stay in these layers, as the budget counts them.
        granularity: kinds that may go, some of ``GRANULARITIES``.
    """
    order = removal_order(scores, kept, costs, size=size, granularity=granularity)
    removals = order.removals_for(size)
    for one, layer in zip(kept, order.layers, strict=True):
        one.leave(layer, removals)


def removal_order(
    scores: Sequence[Scores],
    kept: Sequence[Kept],
    costs: Sequence[UnitCosts],
    *,
    size: int,
    granularity: Sequence[str],
) -> RemovalOrder:
    """Return in which order what is ``kept`` goes, the least important first, down to ``size``.

    A layer keeps a head, a dimension and a neuron, unless it goes as a whole; one layer stays.
    Arguments are those of ``remove_least_important``.
    """
    candidates = sorted(
        _candidates(scores, kept, granularity),
        key=lambda one: (one.score, one.kind, one.layer, one.index),
    )
    remaining = [_Remaining(one, cost) for one, cost in zip(kept, costs, strict=True)]
    sizes = [sum(one.size for one in remaining)]
    alive = sum(not one.dropped for one in remaining)
    for candidate in candidates:
        if sizes[-1] <= size:
            break
        layer, number = remaining[candidate.layer], len(sizes) - 1
        before = layer.size
        if candidate.kind != LAYERS:
            if not layer.remove(candidate, number):
                continue
        elif alive > 1:
            layer.drop(number)
            alive -= 1
        else:
            continue
        sizes.append(sizes[-1] - before + layer.size)
    orders = [layer.order(score) for layer, score in zip(remaining, scores, strict=True)]
    return RemovalOrder(orders, torch.tensor(sizes))


def _candidates(
    scores: Sequence[Scores], kept: Sequence[Kept], granularity: Sequence[str]
) -> Iterator[_Candidate]:
    for number, (score, here) in enumerate(zip(scores, kept, strict=True)):
        if here.dropped:
            continue
        if HEADS in granularity:
            yield from _of_kind(HEADS, number, score.heads, here.heads)
        if NEURONS in granularity:
            yield from _of_kind(NEURONS, number, score.neurons, here.neurons)
        if HEAD_DIMENSIONS in granularity:
            yield from _dimensions(number, score, here)
        if LAYERS in granularity:
            yield _Candidate(float(score.layer), LAYERS, number, 0)


def _of_kind(kind: str, layer: int, scores: Tensor, kept: Tensor) -> Iterator[_Candidate]:
    for index in kept.nonzero()[:, 0].tolist():
        yield _Candidate(float(scores[index]), kind, layer, index)


def _dimensions(layer: int, score: Scores, here: Kept) -> Iterator[_Candidate]:
    """Yield the removal of the least important dimension of every head, then of the next."""
    shape = (len(here.heads), here.dimensions)
    ranked = []
    for scores, kept in ((score.query_key, here.query_key), (score.value, here.value)):
        ranked.append(scores[kept].view(shape)[here.heads].sort(1).values.mean(0))
    for index, value in enumerate(((ranked[0] + ranked[1]) / 2).tolist()):
        yield _Candidate(value, HEAD_DIMENSIONS, layer, index)


def _place_dimensions(
    positions: Tensor, scores: Tensor, kept: Tensor, removals: Sequence[int]
) -> None:
    """Note in each row which removal takes its lowest score, its next, and so on; ties by position.

    All rows have as many dimensions.
    """
    masked = scores.float().masked_fill(~kept, -torch.inf)
    order = masked.sort(dim=1, descending=True, stable=True).indices
    left = int(kept[0].count_nonzero())
    for count, removal in enumerate(removals, start=1):
        positions.scatter_(1, order[:, left - count, None], removal)


class _Remaining:
    """What one layer has left while candidates are walked through, and when the others went.

    Dimensions are counted: which of each head go depends on how many.
    """

    def __init__(self, kept: Kept, costs: UnitCosts) -> None:
        self.kept, self.costs = kept, costs
        self.heads, self.neurons = (
            int(kept.heads.count_nonzero()),
            int(kept.neurons.count_nonzero()),
        )
        self.dimensions = kept.dimensions
        self.dropped = kept.dropped
        #: By kind: which removal took what, or, of dimensions, one of every head.
        self.gone: dict[str, dict[int, int]] = {kind: {} for kind in GRANULARITIES}

    @property
    def size(self) -> int:
        return 0 if self.dropped else self.costs.of(self.heads, self.dimensions, self.neurons)

    def remove(self, candidate: _Candidate, number: int) -> bool:
        """Remove a head, a neuron, or a dimension of every head, unless it is the last."""
        kind = candidate.kind
        left = {HEADS: self.heads, NEURONS: self.neurons, HEAD_DIMENSIONS: self.dimensions}[kind]
        if self.dropped or left <= 1:
            return False
        self.heads -= kind == HEADS
        self.neurons -= kind == NEURONS
        self.dimensions -= kind == HEAD_DIMENSIONS
        self.gone[kind][candidate.index] = number
        return True

    def drop(self, number: int) -> None:
        """Remove the whole layer."""
        self.dropped = True
        self.gone[LAYERS][0] = number

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
            positions.clamp_(max=self.gone[LAYERS].get(0, never))
        for positions, scores, mask in (
            (query_key, score.query_key, here.query_key),
            (value, score.value, here.value),
        ):
            _place_dimensions(positions, scores, mask, sorted(self.gone[HEAD_DIMENSIONS].values()))
        return LayerOrder(heads, query_key, value, neurons)


@dataclass(frozen=True)
class _Candidate:
    score: float
    kind: str
    layer: int
    index: int
