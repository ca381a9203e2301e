"""Importance by task, merged into one ranking.

Gradients of tasks differ in scale, so that one running mean of them all is mostly of one task.
Rankings have no scale. That statistics of tasks are kept apart, and a weight goes only if no task
needs it, is Sun et al. (2022), "DiSparse: Disentangled Sparsification for Multitask Model
Compression" (arXiv 2206.04662); how they are joined here is in each class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from typing_extensions import override

from multiprune.arguments import check_is
from multiprune.models.task_heads import TaskHeads
from multiprune.pruning.finite import compared_scores
from multiprune.pruning.importance import Scores
from multiprune.pruning.ready import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import nn

    from multiprune.pruning.removal import Kept

#: Of the bits of a floating-point number, those that are not looked at: 13 of the mantissa are.
_UNREAD_BITS = 10


class ByTask(ABC):
    """Keeps apart what a pruner gathers of each task, and joins the rankings of all tasks.

    Every step must be of one task: gradients that were accumulated over batches of several, or of
    a batch that several tasks share, cannot be told apart, and are refused. Statistics move only
    in the steps of their task, which all processes take together, and are a dimension more of the
    buffers that hold them: of single weights, four tasks take four times the memory.

    Args:
        tasks: their names; by default those that the model has ``TaskHeads`` for.
    """

    def __init__(self, *, tasks: Sequence[str] = ()) -> None:
        self.tasks = list(tasks)
        self._of_step: frozenset[str] = frozenset()
        # Which task is looked at while all are ranked.
        self._ranked: int | None = None

    @abstractmethod
    def join(
        self, first: Float[Tensor, "*units"], second: Float[Tensor, "*units"]
    ) -> Float[Tensor, "*units"]:
        """Return one share from those of two tasks, or of one and of those joined before."""

    def prepare(self, model: nn.Module) -> None:
        """Find the tasks of a model, unless they were named.

        Raises:
            ValueError: if there are none.
        """
        heads = (one for one in model.modules() if isinstance(one, TaskHeads))
        self.tasks = self.tasks or [*next(heads, ())]
        if not self.tasks:
            raise ValueError(
                f"`by_task` keeps tasks apart, but {type(model).__name__} has none that are known: "
                "name them, as MeanRank(tasks=['first', 'second'])."
            )

    def note(self, tasks: Iterable[str]) -> None:
        """Note of which tasks the gradients of a step are."""
        self._of_step = frozenset(tasks)

    @property
    def current(self) -> int:
        """The number of the task whose statistics are read or written.

        Raises:
            NotReadyError: if the step is not of one task.
        """
        if self._ranked is not None:
            return self._ranked
        found = [number for number, task in enumerate(self.tasks) if task in self._of_step]
        if not len(found) == len(self._of_step) == 1:
            raise NotReadyError(
                f"`pruner.by_task` needs steps of one task each, of {', '.join(self.tasks)}, but "
                f"one is of {', '.join(sorted(self._of_step)) or 'none that was noted'}: neither "
                "accumulate gradients nor share batches, or leave `by_task` out."
            )
        return found[0]

    def each(self) -> Iterator[int]:
        """Yield the number of each task, while its statistics are those that are read."""
        try:
            for number in range(len(self.tasks)):
                self._ranked = number
                yield number
        finally:
            self._ranked = None

    def apart(self, statistic: Tensor) -> Tensor:
        """Return a copy of what is gathered at the start for each task, of shape (tasks, ...)."""
        return statistic.expand(len(self.tasks), *statistic.shape).clone()

    def joined(self, shares: Callable[[], Sequence[Tensor]]) -> list[Tensor]:
        """Return scores that rank what all tasks rank: the largest is needed most.

        ``shares`` returns what ``top_shares`` makes of the statistics that are looked at.
        """
        found = (shares() for _ in self.each())
        joined = reduce(lambda one, other: [*map(self.join, one, other)], found)
        return [-share for share in joined]

    def joined_units(
        self, scores: Callable[[], list[Scores]], kept: Sequence[Kept], granularity: Sequence[str]
    ) -> list[Scores]:
        """Return scores of units from those of each task, all kinds and layers ranked together."""

        def shares() -> list[Tensor]:
            found = scores()
            pairs = zip(found, kept, strict=True)
            compared = [part for pair in pairs for part in compared_scores(*pair, granularity)]
            return top_shares([part for one in found for part in vars(one).values()], compared)

        kinds = len(Scores.__dataclass_fields__)
        parts = self.joined(shares)
        return [Scores(*parts[at : at + kinds]) for at in range(0, len(parts), kinds)]


def checked(by_task: ByTask | None) -> ByTask | None:
    """Return what was given as a pruner's ``by_task``, or raise a TypeError."""
    if by_task is not None:
        check_is(ByTask, "HighestRank()", by_task=by_task)
    return by_task


class MeanRank(ByTask):
    """The mean of a unit's ranks: every task has the same say."""

    @override
    def join(
        self, first: Float[Tensor, "*units"], second: Float[Tensor, "*units"]
    ) -> Float[Tensor, "*units"]:
        return first + second  # as many for every unit


class HighestRank(ByTask):
    """The highest of a unit's ranks: it stays if any task needs it, as in DiSparse."""

    @override
    def join(
        self, first: Float[Tensor, "*units"], second: Float[Tensor, "*units"]
    ) -> Float[Tensor, "*units"]:
        return torch.minimum(first, second)


def top_shares(
    scores: Sequence[Float[Tensor, "..."]], among: Sequence[Float[Tensor, "..."]] | None = None
) -> list[Float[Tensor, "..."]]:
    """Return for each score the share of the scores ``among`` (all) that are at least as large.

    In [0, 1], the smallest of the best. Equal scores have that of the last of them, so that a task
    that has said nothing yet, all of whose scores are equal, has 1 for every one and no say. No
    sort: scores are counted by their first bits, so that those that differ by less than 1 in 8,192
    count as equal. NaN stays NaN.
    """
    ordered = [_ordered(score) for score in scores]
    ranked = torch.cat([*map(_ordered, among)] if among is not None else ordered)
    smallest = ranked.min()
    counts = torch.bincount(ranked - smallest)
    smaller = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    share_of = ((len(ranked) - smaller) / len(ranked)).float()
    places = [(one - smallest).clamp_(0, len(counts)) for one in ordered]
    return [
        share_of.index_select(0, place).view(score.shape).masked_fill_(score.isnan(), torch.nan)
        for place, score in zip(places, scores, strict=True)
    ]


def _ordered(scores: Float[Tensor, "..."]) -> Int32[Tensor, "_"]:
    """Return integers that order as floating-point numbers do, but for their last bits."""
    # 0 and -0 are one number.
    bits = (scores.detach().float() + 0.0).reshape(-1).view(torch.int32)
    # Of negative numbers, all but the sign is the other way round.
    ordered = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)
    return ordered.bitwise_right_shift_(_UNREAD_BITS)
