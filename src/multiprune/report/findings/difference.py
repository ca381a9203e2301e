"""The difference of two contenders, paired by seed, with a bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from multiprune.report.records.frame import SPLITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.findings.contender import Contender
    from multiprune.report.findings.example_draws import ExampleDraws
    from multiprune.report.findings.resampling import Numbers
    from multiprune.report.records.frame import Row

RESAMPLES = 10_000

#: Stands for the mean over tasks where a task could stand.
MEAN = "mean"


@dataclass(frozen=True)
class Difference:
    """A mean difference, the seeds that both sides have, and the ends of a 95 % interval.

    Attributes:
        low: None if there is no interval: with one seed, unless examples are resampled.
        examples: whether the interval is over examples, beside seeds.
        reason: why it is not.
    """

    mean: float
    seeds: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    examples: bool = False
    reason: str | None = None


def score_difference(
    ours: Contender, theirs: Contender, tasks: Sequence[str], split: str, draws: ExampleDraws
) -> Difference | None:
    """Return how far ``ours`` is above ``theirs`` on the mean of ``tasks``.

    None if they have no seed in common for which all of these scores are known.
    """
    sides = [[one.by_seed(task, SPLITS[split]) for task in tasks] for one in (ours, theirs)]
    seeds = sorted(set.intersection(*(set(by_seed) for side in sides for by_seed in side)))
    if not seeds:
        return None
    first, second = (
        np.array([[[by_seed[seed] for seed in seeds] for by_seed in side]]) for side in sides
    )
    mean, reason = float((first - second).mean()), None
    try:
        first, second = _drawn(ours, theirs, tasks, seeds, split, draws)
    except ValueError as error:
        reason = str(error)
        if len(seeds) == 1:
            return Difference(mean, tuple(seeds), reason=reason)
    low, high = paired_interval(first, second)
    return Difference(mean, tuple(seeds), low, high, reason is None, reason)


def differences_by_task(
    ours: Contender, theirs: Contender, split: str, draws: ExampleDraws
) -> dict[str, Difference]:
    """Return the differences of all tasks whose scores both sides have, and of their ``MEAN``."""
    ours_with, theirs_with = (one.tasks_with(SPLITS[split]) for one in (ours, theirs))
    known = [task for task in theirs_with if task in ours_with]
    groups = {task: [task] for task in known} | ({MEAN: known} if known else {})
    found = {
        name: score_difference(ours, theirs, members, split, draws)
        for name, members in groups.items()
    }
    return {name: one for name, one in found.items() if one is not None}


def _drawn(
    ours: Contender,
    theirs: Contender,
    tasks: Sequence[str],
    seeds: Sequence[int],
    split: str,
    draws: ExampleDraws,
) -> tuple[Numbers, Numbers]:
    """Return the scores of both sides on the same resamples: shape (draws, tasks, seeds).

    Raises:
        ValueError: if they are not known, or runs were not asked the same.
    """
    sides: tuple[list[list[Numbers]], list[list[Numbers]]] = ([], [])
    for task in tasks:
        questions: dict[str, Row] = {}
        for contender, side in zip((ours, theirs), sides, strict=True):
            runs = {run.record.seed: run for run in contender.runs[task]}
            drawn = {seed: draws.of(runs[seed], task, split) for seed in seeds}
            for seed, one in drawn.items():
                questions.setdefault(one.questions, runs[seed])
            side.append([one.scores for one in drawn.values()])
        if len(questions) > 1:
            first, second = (run.path for run in list(questions.values())[:2])
            raise ValueError(f"{split} examples or labels of {task} differ in {first} and {second}")
    first_side, second_side = (np.moveaxis(np.array(side), 2, 0) for side in sides)
    return first_side, second_side


def paired_interval(ours: Numbers, theirs: Numbers, *, seed: int = 0) -> tuple[float, float]:
    """Return a 95 % interval of the mean of ``ours - theirs``: the percentile bootstrap.

    Both have shape (draws, tasks, seeds). A draw holds the scores on one resample of the examples,
    the same on both sides and for all seeds; a single draw is of all examples as they are.
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
