"""Exact allocation of one budget to single-task models, maximizing their mean score.

One trained size for each task, the sum of sizes within the budget, the sum of scores largest: a
multiple-choice knapsack problem. It is solved by dynamic programming over the partial sums that no
other partial sum beats (Nemhauser & Ullmann 1969), for either half of the tasks, and the two halves
are joined as Horowitz & Sahni (1974) do, so that even the worst case, where nothing beats anything,
takes the square root of all combinations. Nothing is ever read off a curve between or beyond the
sizes that were trained.

Not a table with a cell for each parameter of the budget, which sizes of a hundred million forbid;
and not a mixed-integer solver: it works in floating point with tolerances, in which a sum may
exceed the budget by a few parameters, and leaves ties to chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray

from multiprune.arguments import check_number

# Scores are compared in steps of 1e-12 (where they exceed 1, of the next power of ten), so that
# neither the order of summation nor the noise of averaging decides a tie.
_DIGITS = 12


@dataclass(frozen=True)
class Option:
    """A size that a task was trained at, and its score, averaged over so many seeds."""

    size: int
    score: float
    seeds: int = 1

    def __post_init__(self) -> None:
        check_number("size", self.size, at_least=0, whole=True)
        check_number("score", self.score)
        check_number("seeds", self.seeds, at_least=1, whole=True)


OptionT = TypeVar("OptionT", bound=Option)


def best_split(options: Mapping[str, Sequence[OptionT]], budget: int) -> dict[str, OptionT]:
    """Choose an option for each task so that sizes sum to at most ``budget`` and the score is best.

    Of choices with equal scores, the one with the fewest parameters is taken; of those, the one
    that gives the fewest to the first task by name, then to the second, and so on; of options that
    are equal in both, the first. The order of tasks and sizes makes no difference otherwise.

    Raises:
        ValueError: if a task has no option, or no choice fits; that names a task and the trained
            sizes nearest to an even share.
    """
    _check(options, budget)
    names = sorted(options)
    ordered = {name: sorted(options[name], key=lambda one: one.size) for name in names}
    smallest = {name: ordered[name][0].size for name in names}
    if sum(smallest.values()) > budget:
        raise ValueError(_too_small(ordered, budget))
    scores = _whole_scores(ordered)
    spare = budget - sum(smallest.values())
    halves = []
    for part in (names[: len(names) // 2], names[len(names) // 2 :]):
        sums, limit = _NOTHING, spare
        for name in part:
            limit += smallest[name]
            sizes = np.array([one.size for one in ordered[name] if one.size <= budget], np.int64)
            sums = sums.extended(sizes, scores[name][: len(sizes)], limit)
        halves.append(sums)
    first, second = halves
    left, right = _best_pair(first, second, budget)
    chosen = [*first.choices(left), *second.choices(right)]
    return {name: ordered[name][chosen[names.index(name)]] for name in options}


def fit_shares(
    options: Mapping[str, Sequence[OptionT]], shares: Mapping[str, int]
) -> dict[str, OptionT]:
    """Choose for each task the best option that its own share of a budget holds.

    Of options with equal scores, the smallest is taken.

    Raises:
        ValueError: if a task has no option within its share (names the nearest trained sizes).
    """
    _check(options, sum(shares.values()))
    chosen = {}
    for name, candidates in options.items():
        fitting = [one for one in candidates if one.size <= shares[name]]
        if not fitting:
            raise ValueError(
                f"A share must hold a trained size of its task, but that of {name} is "
                f"{shares[name]:,} parameters and {_nearest(candidates, shares[name])}."
            )
        chosen[name] = min(fitting, key=lambda one: (-one.score, one.size))
    return chosen


def uniform_shares(tasks: Sequence[str], budget: int) -> dict[str, int]:
    """Give each task the same share of ``budget``, rounded down."""
    return dict.fromkeys(tasks, budget // len(tasks))


def proportional_shares(examples: Mapping[str, int], budget: int) -> dict[str, int]:
    """Share ``budget`` out as the tasks' numbers of training examples, rounded down."""
    if min(examples.values(), default=0) < 1:
        raise ValueError(f"Each task must have training examples, but they are {dict(examples)}.")
    whole = sum(examples.values())
    return {name: budget * count // whole for name, count in examples.items()}


@dataclass(frozen=True)
class _Sums:
    """Partial sums that no other beats: sizes and scores both rise.

    ``ranks`` orders them as :func:`best_split` orders ties. Each is made of sum number ``before``
    of ``previous`` and of ``option`` of the last task.
    """

    sizes: Shaped[NDArray[np.int64], "sums"]
    scores: Shaped[NDArray[np.int64], "sums"]
    ranks: Shaped[NDArray[np.int64], "sums"]
    before: Shaped[NDArray[np.int64], "sums"]
    option: Shaped[NDArray[np.int64], "sums"]
    previous: _Sums | None

    def extended(
        self,
        sizes: Shaped[NDArray[np.int64], "options"],
        scores: Shaped[NDArray[np.int64], "options"],
        limit: int,
    ) -> _Sums:
        """Add each option of one more task, and drop sums above ``limit`` and those beaten."""
        # Option by option, so that the sort finds long runs that are sorted already.
        size = (sizes[:, None] + self.sizes).ravel()
        order = np.argsort(size, kind="stable")
        order = order[: np.searchsorted(size[order], limit, side="right")]
        option, before = np.divmod(order, len(self.sizes))
        score = scores[option] + self.scores[before]
        rank = self.ranks[before] * len(sizes) + option
        kept = _unbeaten(size[order], score, rank)
        rank = rank[kept]
        if rank.max() > _LARGEST_RANK:
            rank = np.argsort(np.argsort(rank))
        return _Sums(size[order[kept]], score[kept], rank, before[kept], option[kept], self)

    def choices(self, index: int) -> list[int]:
        """Return the number of the option of each task that sum number ``index`` is made of."""
        if self.previous is None:
            return []
        return [*self.previous.choices(int(self.before[index])), int(self.option[index])]


# Ranks are multiplied with the number of options at each task; above this they are renumbered.
_LARGEST_RANK = 2**40

_NEVER = np.iinfo(np.int64).min
_ZERO = np.zeros(1, np.int64)
_NOTHING = _Sums(_ZERO, _ZERO, _ZERO, _ZERO, _ZERO, None)


def _unbeaten(
    sizes: Shaped[NDArray[np.int64], "sums"],
    scores: Shaped[NDArray[np.int64], "sums"],
    ranks: Shaped[NDArray[np.int64], "sums"],
) -> Shaped[NDArray[np.int64], "unbeaten"]:
    """Return where, in rising ``sizes``, a score is above those of all sums of at most its size.

    Of sums that are equal in both, the one of the lowest rank.
    """
    starts = np.flatnonzero(np.diff(sizes, prepend=-1))
    best = np.maximum.reduceat(scores, starts)
    reached = np.maximum.accumulate(best)
    rises = np.concatenate([[True], reached[1:] > reached[:-1]])
    counts = np.diff(starts, append=len(sizes))
    best_of_size = np.where(np.repeat(rises, counts), np.repeat(best, counts), _NEVER)
    candidates = np.flatnonzero(scores == best_of_size)
    starts = np.flatnonzero(np.diff(sizes[candidates], prepend=-1))
    first = np.minimum.reduceat(ranks[candidates], starts)
    counts = np.diff(starts, append=len(candidates))
    unbeaten: NDArray[np.int64] = candidates[ranks[candidates] == np.repeat(first, counts)]
    return unbeaten


def _best_pair(first: _Sums, second: _Sums, budget: int) -> tuple[int, int]:
    """Return the numbers of the two partial sums that together are best within ``budget``."""
    partner = np.searchsorted(second.sizes, budget - first.sizes, side="right") - 1
    left = np.flatnonzero(partner >= 0)
    right = partner[left]
    size = first.sizes[left] + second.sizes[right]
    score = first.scores[left] + second.scores[right]
    best = np.flatnonzero(score == score.max())
    best = best[size[best] == size[best].min()]
    index = best[first.ranks[left[best]].argmin()]
    return int(left[index]), int(right[index])


def _whole_scores(
    options: Mapping[str, Sequence[Option]],
) -> dict[str, Shaped[NDArray[np.int64], "_"]]:
    largest = max(abs(one.score) for candidates in options.values() for one in candidates)
    scale = 10.0 ** (_DIGITS - math.ceil(math.log10(max(1.0, largest))))
    return {
        name: np.array([round(one.score * scale) for one in candidates], np.int64)
        for name, candidates in options.items()
    }


def _check(options: Mapping[str, Sequence[Option]], budget: int) -> None:
    if not options:
        raise ValueError("A budget must be shared among at least one task, but there is none.")
    if empty := [name for name, candidates in options.items() if not candidates]:
        raise ValueError(f"Each task must have a trained size, but {empty[0]} has none.")
    if budget < 0:
        raise ValueError(f"A budget must be at least 0 parameters, but is {budget:,}.")


def _too_small(options: Mapping[str, Sequence[Option]], budget: int) -> str:
    smallest = {name: min(one.size for one in options[name]) for name in options}
    name = max(smallest, key=lambda one: smallest[one])
    share = budget // len(options)
    return (
        f"A budget of {budget:,} parameters must hold a trained size of each of {len(options)} "
        f"tasks, but the smallest sum to {sum(smallest.values()):,}: the largest of them is that "
        f"of {name}, whose even share is {share:,} and {_nearest(options[name], share)}."
    )


def _nearest(options: Sequence[Option], share: int) -> str:
    sizes = sorted({one.size for one in options}, key=lambda size: (abs(size - share), size))
    if len(sizes) == 1:
        return f"its only trained size is {sizes[0]:,}"
    return "its nearest trained sizes are " + " and ".join(f"{one:,}" for one in sorted(sizes[:2]))
