"""Scores over seeds, and differences of scores that are paired by seed, with their intervals."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

Numbers = NDArray[np.float64]

RESAMPLES = 10_000

#: Over fewer seeds, and no examples, what is shown is their range.
FEW_SEEDS = 3

#: What scores are averaged over unless a comparison is made by it.
AVERAGED = ("task", "language")

#: Stands for the mean over tasks where a task could stand.
MEAN = "mean"


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and their extremes, which are unknown where tasks differ in their seeds."""

    mean: float
    low: float | None = None
    high: float | None = None
    seeds: int = 1

    def __str__(self) -> str:
        is_range = self.seeds > 1 and self.low is not None and self.high is not None
        return f"{self.mean:.3f}" + (f" ({self.low:.3f} to {self.high:.3f})" if is_range else "")


@dataclass(frozen=True)
class Difference:
    """A mean difference, paired by seed.

    Attributes:
        low: of an interval of 95 %, or of the range over seeds, see :attr:`is_range`; None with one
            seed, unless examples are resampled.
        p: of no difference (two-sided); None where there are too few seeds for one.
        seeds: that both sides have.
        examples: whether examples are resampled, beside seeds.
        reason: why they are not.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    seeds: tuple[int, ...] = ()
    examples: bool = False
    reason: str | None = None

    @property
    def is_range(self) -> bool:
        """Whether the ends are the extremes over seeds, since those are too few to resample."""
        return not self.examples and len(self.seeds) < FEW_SEEDS

    @property
    def is_clear(self) -> bool:
        """Whether it has an interval, and 0 is not in it."""
        if self.is_range or self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        ends = "" if self.low is None else f" [{self.low:+.3f} to {self.high:+.3f}]"
        return f"{self.mean:+.3f}{ends}"


def spread(values: Iterable[float]) -> Spread:
    """Return the mean of values, one a seed, and their extremes."""
    values = list(values)
    return Spread(statistics.fmean(values), min(values), max(values), len(values))


def spreads(tasks: Mapping[str, Mapping[int, float]]) -> dict[str, Spread]:
    """Return the scores of each task over seeds, and of ``MEAN`` over tasks, from those by seed.

    The range of the mean is that of the seeds' means, and unknown if tasks differ in their seeds.
    """
    found = {task: spread(by_seed.values()) for task, by_seed in tasks.items()}
    return found | ({MEAN: _mean(list(tasks.values()))} if tasks else {})


def _mean(tasks: Sequence[Mapping[int, float]]) -> Spread:
    seeds = tasks[0].keys()
    if all(by_seed.keys() == seeds for by_seed in tasks):
        return spread(statistics.fmean(by_seed[seed] for by_seed in tasks) for seed in seeds)
    mean = statistics.fmean(statistics.fmean(by_seed.values()) for by_seed in tasks)
    return Spread(mean, seeds=min(map(len, tasks)))


def compare(
    frame: pd.DataFrame,
    left: pd.Series,
    right: pd.Series,
    *,
    pair_on: str = "seed",
    by: Sequence[str] = (),
    resampled: Callable[[str, str, str], tuple[Numbers, str]] | None = None,
) -> pd.DataFrame:
    """Return how far the scores of ``left`` are above those of ``right``.

    Scores are averaged over tasks and languages that both sides have, unless these are in ``by``,
    and paired by those values of ``pair_on`` for which all of them are known on both sides.

    Args:
        frame: of scores, as :func:`multiprune.runs.frame.read_frame` returns it.
        left: which of its rows are on the left; one at most of a pair, group, task and language.
        right: likewise.
        pair_on: column that pairs rows.
        by: columns; there is a difference for each of their values that both sides have.
        resampled: returns the scores of a run, task and split on resamples of the evaluation
            examples, and a hash of those examples; raises a ValueError where they are not known.

    Returns:
        The columns ``by``, and ``difference``, mean, low, high, p and seeds of it.
    """
    averaged = [name for name in AVERAGED if name not in by]
    ours, theirs = (_groups(frame[side], by, averaged, pair_on) for side in (left, right))
    rows = []
    for key, cells in ours.items():
        if (found := _difference(cells, theirs.get(key, {}), resampled)) is not None:
            ends = (found.mean, found.low, found.high, found.p, len(found.seeds))
            rows.append([*key, found, *ends])
    found = pd.DataFrame(rows, columns=[*by, "difference", "mean", "low", "high", "p", "seeds"])
    return found.sort_values(list(by), ignore_index=True) if by else found


def paired_interval(ours: Numbers, theirs: Numbers, *, seed: int = 0) -> tuple[float, float, float]:
    """Return a 95 % interval of the mean of ``ours - theirs``, and p: the percentile bootstrap.

    Both have shape (draws, tasks, seeds). A draw holds the scores on one resample of the examples,
    the same on both sides and for all seeds; a single draw is of all examples as they are.
    Tasks are not resampled: they are those of interest (Efron & Tibshirani 1993, chapter 13). ``p``
    is twice the share of resamples on the rarer side of 0.
    """
    if ours.shape != theirs.shape or ours.ndim != 3:
        raise ValueError(
            "Paired scores must have one shape (draws, tasks, seeds), but have "
            f"{ours.shape} and {theirs.shape}."
        )
    by_draw = (ours - theirs).mean(axis=1)
    draws, seeds = by_draw.shape
    picked = np.random.default_rng(seed).integers(seeds, size=(RESAMPLES, seeds))
    means = by_draw[np.arange(RESAMPLES)[:, None] % draws, picked].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return float(low), float(high), min(1.0, 2 * max(1, beyond) / RESAMPLES)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return p of no difference: the share of all choices of signs with a mean as far from 0.

    The exact paired permutation test (Fisher 1935, section 21), at most 2^12 choices of signs; of
    more than 12 differences, as many drawn ones.
    """
    values, count = np.asarray(differences), min(len(differences), 12)
    if len(values) == count:
        signs = np.array(list(itertools.product((-1, 1), repeat=count)))
    else:
        signs = np.random.default_rng(0).choice((-1, 1), size=(1 << count, len(values)))
    means = np.abs((signs * values).mean(axis=1))
    return float((means >= abs(values.mean()) - 1e-12).mean())


#: A value and the run, task and split that it is of, by what pairs it.
_Paired = dict[Any, tuple[float, tuple[str, str, str]]]


def _groups(
    side: pd.DataFrame, by: Sequence[str], averaged: Sequence[str], pair_on: str
) -> dict[tuple[Hashable, ...], dict[tuple[Hashable, ...], _Paired]]:
    """Return the rows of a side by group, by what is averaged, and by what pairs them."""
    groups: dict[tuple[Hashable, ...], dict[tuple[Hashable, ...], _Paired]] = {}
    names = [*by, *averaged, pair_on, "value", "run", "task", "split"]
    for *key, pair, value, run, task, split in side[names].itertuples(index=False, name=None):
        group, cell = tuple(key[: len(by)]), tuple(key[len(by) :])
        paired = groups.setdefault(group, {}).setdefault(cell, {})
        if pair in paired:
            raise ValueError(
                f"Two runs have the same {pair_on}, {pair}: {paired[pair][1][0]}, {run}."
            )
        paired[pair] = value, (run, task, split)
    return groups


def _difference(
    ours: Mapping[tuple[Hashable, ...], _Paired],
    theirs: Mapping[tuple[Hashable, ...], _Paired],
    resampled: Callable[[str, str, str], tuple[Numbers, str]] | None,
) -> Difference | None:
    cells = [(ours[cell], theirs[cell]) for cell in ours if cell in theirs]
    if not cells:
        return None
    seeds = sorted(set.intersection(*(set(side) for sides in cells for side in sides)))
    if not seeds:
        return None
    known = [
        np.array([[[sides[place][seed][0] for seed in seeds] for sides in cells]])
        for place in (0, 1)
    ]
    by_seed = (known[0] - known[1]).mean(axis=1)[0]
    mean, pairs = float(by_seed.mean()), tuple(seeds)
    reason = "scores were compared by seed only"
    if resampled is not None:
        try:
            drawn = _resampled(cells, seeds, resampled)
        except ValueError as error:
            reason = str(error)
        else:
            return Difference(mean, *paired_interval(*drawn), pairs, examples=True)
    if len(seeds) == 1:
        return Difference(mean, seeds=pairs, reason=reason)
    low, high, _ = paired_interval(known[0], known[1])
    p = sign_flip_p(by_seed) if len(seeds) >= FEW_SEEDS else None
    return Difference(mean, low, high, p, pairs, reason=reason)


def _resampled(
    cells: Sequence[tuple[_Paired, _Paired]],
    seeds: Sequence[Any],
    resampled: Callable[[str, str, str], tuple[Numbers, str]],
) -> tuple[Numbers, Numbers]:
    """Return the scores of both sides on the same resamples: shape (draws, tasks, seeds).

    Raises:
        ValueError: if they are not known, or runs were not evaluated on the same examples.
    """
    sides: tuple[list[list[Numbers]], list[list[Numbers]]] = ([], [])
    for cell in cells:
        asked: dict[str, str] = {}
        for place in (0, 1):
            places = [cell[place][seed][1] for seed in seeds]
            drawn = [resampled(*where) for where in places]
            for (run, *_), (_, examples) in zip(places, drawn, strict=True):
                asked.setdefault(examples, run)
            sides[place].append([scores for scores, _ in drawn])
        if len(asked) > 1:
            first, second, *_ = asked.values()
            _, task, split = places[0]
            raise ValueError(f"{split} examples or labels of {task} differ in {first} and {second}")
    left, right = (np.moveaxis(np.array(side), 2, 0) for side in sides)
    return left, right
