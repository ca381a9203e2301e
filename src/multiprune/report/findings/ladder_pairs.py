"""Sizes of one model of many, paired with separate models of nearly the same sizes."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.report.findings.contender import statistic_of
from multiprune.report.records.frame import SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.findings.contender import Statistic
    from multiprune.report.findings.model import Model

#: The larger of a pair of sizes is at most so many times the smaller.
APART = 1.2


@dataclass(frozen=True, kw_only=True)
class Point:
    """One size of a model of many.

    Attributes:
        parameters: of the largest seed, as those of other models.
        scores: by seed and task.
    """

    parameters: int
    scores: Mapping[int, Mapping[str, float]]

    @property
    def by_seed(self) -> dict[int, float]:
        """The mean over tasks by seed."""
        return {seed: statistics.fmean(one.values()) for seed, one in self.scores.items()}

    @property
    def mean(self) -> Statistic:
        """The mean over tasks."""
        return statistic_of(list(self.by_seed.values()))

    def score(self, task: str) -> Statistic:
        """Return the score of one task."""
        return statistic_of([one[task] for one in self.scores.values()])


@dataclass(frozen=True, kw_only=True)
class SizePair:
    """Nearly the same size twice, with mean scores over the seeds that both have."""

    point: Point
    separate: Model
    seeds: tuple[int, ...]
    of_point: Statistic
    of_separate: Statistic

    @property
    def ratio(self) -> float | None:
        """The score of the point over that of the separate model; None if that is not above 0."""
        above = self.of_separate.mean > 0
        return self.of_point.mean / self.of_separate.mean if above else None


@dataclass(frozen=True, kw_only=True)
class Separate:
    """Separate models of one method, the smallest first, and which of them are in pairs."""

    method: str
    models: Sequence[Model]
    pairs: Sequence[SizePair]

    @property
    def ratio(self) -> float | None:
        """The mean ratio over the pairs that have one."""
        ratios = [one.ratio for one in self.pairs if one.ratio is not None]
        return statistics.fmean(ratios) if ratios else None

    @property
    def seconds(self) -> float:
        """Wall time of training each model that is in a pair once."""
        return sum(seconds_of(one.separate) for one in self.pairs)


def seconds_of(model: Model) -> float:
    """Return the wall seconds of one run, the mean over seeds."""
    return statistics.fmean(run.record.wall_seconds for run in model.runs)


def scores_of(model: Model, tasks: Sequence[str], split: str) -> dict[int, float]:
    """Return the mean over tasks, all of which all runs have scores of, by seed."""
    by_task = [model.contender.by_seed(task, SPLITS[split]) for task in tasks]
    return {
        run.record.seed: statistics.fmean(one[run.record.seed] for one in by_task)
        for run in model.runs
    }


def paired(
    models: Sequence[Model], points: Sequence[Point], tasks: Sequence[str], split: str
) -> list[SizePair]:
    """Pair what is nearest to each other, not too far apart, and has a seed in common."""
    pairs = []
    for model in models:
        point = min(points, key=lambda point: _apart(point, model))
        nearest = min(models, key=lambda other: _apart(point, other))
        ours, theirs = point.by_seed, scores_of(model, tasks, split)
        seeds = tuple(sorted(ours.keys() & theirs.keys()))
        if nearest is model and _apart(point, model) <= APART and seeds:
            pairs.append(
                SizePair(
                    point=point,
                    separate=model,
                    seeds=seeds,
                    of_point=statistic_of([ours[seed] for seed in seeds]),
                    of_separate=statistic_of([theirs[seed] for seed in seeds]),
                )
            )
    return pairs


def _apart(point: Point, model: Model) -> float:
    small, large = sorted((point.parameters, model.contender.parameters))
    return large / small
