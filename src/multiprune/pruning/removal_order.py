"""Removal order of units, least important first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from multiprune.models.nested import RemovalOrder
from multiprune.pruning.remaining_layer import Candidate
from multiprune.pruning.removal import (
    BLOCKS,
    GRANULARITIES,
    HEAD_DIMENSIONS,
    HEADS,
    LAYERS,
    NEURONS,
)
from multiprune.pruning.removal_walk import RemovalWalk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from multiprune.pruning.importance import Scores
    from multiprune.pruning.removal import Kept, UnitCosts


def remove_least_important(
    scores: Sequence[Scores],
    kept: Sequence[Kept],
    costs: Sequence[UnitCosts],
    *,
    size: int,
    granularity: Sequence[str],
    final: int | None = None,
) -> None:
    """Remove from ``kept`` what matters least, one by one, until no more than ``size`` is left.

    What is gone stays gone.

    Args:
        scores: by layer, comparable between layers and kinds, as ``relative_scores`` and
            ``scores_per_parameter`` make them.
        kept: by layer.
        costs: by layer.
        size: parameters that may stay in these layers, as the budget counts them.
        granularity: kinds that may go, some of ``GRANULARITIES``.
        final: ``size`` of the last ranking that is to come, where this is not the last.
    """
    order = removal_order(scores, kept, costs, size=size, granularity=granularity, final=final)
    for one, layer in zip(kept, order.layers, strict=True):
        one.leave(layer, order.smallest)


def removal_order(
    scores: Sequence[Scores],
    kept: Sequence[Kept],
    costs: Sequence[UnitCosts],
    *,
    size: int,
    granularity: Sequence[str],
    final: int | None = None,
) -> RemovalOrder:
    """Return in which order what is ``kept`` goes, the least important first, down to ``size``.

    A block keeps a head, a dimension or a neuron, unless it goes as a whole, by itself or with its
    layer; one block of one layer stays. What would leave room for the smallest unit below the final
    size is passed over, for smaller units that follow, and the last neurons stay until they fill
    the room that whole heads leave; of a layer or a block that cannot go as a whole, the least
    important units go. Where nothing is small enough, the smallest goes, and what went before and
    fits is brought back; before the last ranking, nothing goes then.
    Arguments are those of ``remove_least_important``.
    """
    candidates = sorted(
        _candidates(scores, kept, granularity),
        key=lambda one: (one.score, GRANULARITIES.index(one.kind), one.layer, one.index),
    )
    walk = RemovalWalk(candidates, kept, costs, size=size, final=size if final is None else final)
    while walk.remove_what_fits() or walk.remove_smallest():
        pass
    walk.fill_room()
    orders = [layer.order(score) for layer, score in zip(walk.layers, scores, strict=True)]
    return RemovalOrder(orders, torch.tensor(walk.sizes))


def _candidates(
    scores: Sequence[Scores], kept: Sequence[Kept], granularity: Sequence[str]
) -> Iterator[Candidate]:
    for number, (score, here) in enumerate(zip(scores, kept, strict=True)):
        if here.dropped:
            continue
        if HEADS in granularity:
            yield from _of_kind(HEADS, number, score.heads, here.heads)
        if NEURONS in granularity:
            yield from _of_kind(NEURONS, number, score.neurons, here.neurons)
        if HEAD_DIMENSIONS in granularity and here.heads.any():
            for index, value in enumerate(dimension_scores(score, here)):
                yield Candidate(value, HEAD_DIMENSIONS, number, index)
        if BLOCKS in granularity:
            yield from _of_kind(BLOCKS, number, score.blocks, here.blocks)
        if LAYERS in granularity:
            yield Candidate(float(score.layer), LAYERS, number, 0)


def _of_kind(
    kind: str, layer: int, scores: Float[Tensor, "units"], kept: Bool[Tensor, "units"]
) -> Iterator[Candidate]:
    for index in kept.nonzero()[:, 0].tolist():
        yield Candidate(float(scores[index]), kind, layer, index)


def dimension_scores(score: Scores, here: Kept) -> list[float]:
    """Return the score of the least important dimension of every head, then of the next."""
    shape = (len(here.heads), here.dimensions)
    ranked = []
    for scores, kept in ((score.query_key, here.query_key), (score.value, here.value)):
        ranked.append(scores[kept].view(shape)[here.heads].sort(1).values.mean(0))
    found: list[float] = ((ranked[0] + ranked[1]) / 2).tolist()
    return found
