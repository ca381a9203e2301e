"""Which heads, dimensions of heads, neurons and layers go: the least important, until all fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from multiprune.pruning.importance import Scores, relative_to_layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


@dataclass
class Kept:
    """What is kept of one layer: boolean masks, changed in place.

    All heads that are kept have the same number of dimensions, so that attention stays one batched
    product.

    Attributes:
        heads: shape (heads,).
        query_key: shape (heads, head size), whether the head is kept or not.
        value: shape (heads, head size), whether the head is kept or not.
        neurons: shape (neurons,).
    """

    heads: Tensor
    query_key: Tensor
    value: Tensor
    neurons: Tensor

    @property
    def dimensions(self) -> int:
        """The number of dimensions that each head keeps."""
        return int(self.value[0].count_nonzero())

    @property
    def dropped(self) -> bool:
        """Whether the whole layer is gone."""
        return not bool(self.heads.any())

    def drop(self) -> None:
        """Remove the whole layer."""
        self.heads.zero_()
        self.neurons.zero_()

    def size(self, costs: UnitCosts) -> int:
        """Return the number of parameters that the budget counts in this layer."""
        if self.dropped:
            return 0
        heads, neurons = int(self.heads.count_nonzero()), int(self.neurons.count_nonzero())
        return heads * self.dimensions * costs.head_dimension + neurons * costs.neuron + costs.rest


@dataclass
class _Count:
    """How many of each kind one layer has left, while candidates are walked through."""

    heads: int
    dimensions: int
    neurons: int
    costs: UnitCosts

    @property
    def size(self) -> int:
        return (
            self.heads * self.dimensions * self.costs.head_dimension
            + self.neurons * self.costs.neuron
            + self.costs.rest
        )


@dataclass(frozen=True)
class _Candidate:
    score: float
    kind: str
    layer: int
    index: int


def smallest_size(
    costs: Sequence[UnitCosts], kept: Sequence[Kept], granularity: Sequence[str]
) -> int:
    """Return the number of parameters left when everything has gone that may go.

    Which layer stays is known only when it is the last, so it counts as the largest.
    """
    counts = [
        _Count(
            1 if HEADS in granularity else len(one.heads),
            1 if HEAD_DIMENSIONS in granularity else one.dimensions,
            1 if NEURONS in granularity else len(one.neurons),
            cost,
        )
        for one, cost in zip(kept, costs, strict=True)
    ]
    sizes = [count.size for count in counts]
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


def remove_least_important(
    scores: Sequence[Scores],
    kept: Sequence[Kept],
    costs: Sequence[UnitCosts],
    *,
    size: int,
    granularity: Sequence[str],
) -> None:
    """Remove from ``kept`` what matters least, one by one, until no more than ``size`` is left.

    What is gone stays gone. A layer keeps a head, a dimension and a neuron, unless it goes as a
    whole; one layer stays. What goes last may overshoot: less than one group is left unused.

    Args:
        scores: by layer, comparable between layers and kinds, as ``relative_scores`` and
            ``scores_per_parameter`` make them.
        kept: by layer.
        costs: by layer.
        size: parameters that may stay in these layers, as the budget counts them.
        granularity: kinds that may go, some of ``GRANULARITIES``.
    """
    total = sum(one.size(cost) for one, cost in zip(kept, costs, strict=True))
    counts = [
        _Count(
            int(one.heads.count_nonzero()),
            one.dimensions,
            int(one.neurons.count_nonzero()),
            cost,
        )
        for one, cost in zip(kept, costs, strict=True)
    ]
    alive = sum(not one.dropped for one in kept)
    candidates = sorted(
        _candidates(scores, kept, granularity),
        key=lambda one: (one.score, one.kind, one.layer, one.index),
    )
    dimensions_gone = [0] * len(kept)
    for candidate in candidates:
        if total <= size:
            break
        here, count = kept[candidate.layer], counts[candidate.layer]
        if here.dropped:
            continue
        before = count.size
        if candidate.kind == LAYERS and alive > 1:
            here.drop()
            alive -= 1
            total -= before
            continue
        if candidate.kind == HEADS and count.heads > 1:
            here.heads[candidate.index] = False
            count.heads -= 1
        elif candidate.kind == NEURONS and count.neurons > 1:
            here.neurons[candidate.index] = False
            count.neurons -= 1
        elif candidate.kind == HEAD_DIMENSIONS and count.dimensions > 1:
            dimensions_gone[candidate.layer] += 1
            count.dimensions -= 1
        total -= before - count.size
    for here, score, gone in zip(kept, scores, dimensions_gone, strict=True):
        if gone and not here.dropped:
            keep = here.dimensions - gone
            here.query_key.copy_(_largest_in_rows(score.query_key, here.query_key, keep))
            here.value.copy_(_largest_in_rows(score.value, here.value, keep))


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


def _largest_in_rows(scores: Tensor, kept: Tensor, count: int) -> Tensor:
    """Keep the ``count`` largest of what is kept in each row; ties by position."""
    masked = scores.float().masked_fill(~kept, -torch.inf)
    order = masked.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(kept).scatter_(1, order, torch.ones_like(kept))
