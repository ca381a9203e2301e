"""The difference of two contenders, paired by seed, with a bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from multiprune.report.contender import Contender, Score

RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """A mean difference, the seeds that both sides have, and the ends of a 95 % interval.

    There is no interval with one seed.
    """

    mean: float
    seeds: tuple[int, ...]
    low: float | None = None
    high: float | None = None


def score_difference(
    ours: Contender, theirs: Contender, tasks: Sequence[str], score: Score
) -> Difference | None:
    """Return how far ``ours`` is above ``theirs`` on the mean of ``tasks``.

    None if they have no seed in common for which all of these scores are known.
    """
    sides = [[one.by_seed(task, score) for task in tasks] for one in (ours, theirs)]
    seeds = sorted(set.intersection(*(set(by_seed) for side in sides for by_seed in side)))
    if not seeds:
        return None
    first, second = (
        np.array([[[by_seed[seed] for seed in seeds] for by_seed in side]]) for side in sides
    )
    low, high = paired_interval(first, second) if len(seeds) > 1 else (None, None)
    return Difference(float((first - second).mean()), tuple(seeds), low, high)


def paired_interval(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], *, seed: int = 0
) -> tuple[float, float]:
    """Return a 95 % interval of the mean of ``ours - theirs``: the percentile bootstrap.

    Both have shape (draws, tasks, seeds). A draw holds the scores on one resample of the examples,
    the same examples on both sides; without predictions by example there is one, of all examples.
    Tasks are not resampled: they are those of interest (Efron & Tibshirani 1993, chapter 13).
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
    return float(low), float(high)
