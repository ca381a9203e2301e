"""One way to serve several tasks within a budget, and its scores over seeds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from multiprune.report.records.frame import LeftOut, Row, Score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Statistic:
    """A mean over seeds, their standard deviation if there are several, and the extremes.

    The extremes are unknown where the seeds' own values are.
    """

    mean: float
    deviation: float | None
    seeds: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Contender:
    """One way to serve all tasks within a budget.

    Attributes:
        parameters: what counts against the budget.
        runs: for each task, the runs that serve it, one a seed; a multitask run serves all.
        sizes: for each task, the parameters of its model; empty for a multitask model.
    """

    parameters: int
    runs: Mapping[str, Sequence[Row]]
    sizes: Mapping[str, int] = field(default_factory=dict)

    def score(self, task: str, score: Score) -> Statistic | None:
        """Return the score of one task; None if not all of its runs have it."""
        values = self.by_seed(task, score)
        return statistic_of(list(values.values())) if len(values) == len(self.runs[task]) else None

    def tasks_with(self, score: Score) -> list[str]:
        """Return the tasks that have the score."""
        return [task for task in self.runs if self.score(task, score) is not None]

    def mean_score(self, score: Score) -> Statistic | None:
        """Return the mean over the tasks that have the score; None if none has.

        Its deviation is that of the seeds' means, and unknown if tasks differ in their seeds.
        """
        by_task = [self.by_seed(task, score) for task in self.tasks_with(score)]
        if not by_task:
            return None
        seeds = by_task[0].keys()
        if all(one.keys() == seeds for one in by_task):
            return statistic_of([statistics.fmean(one[seed] for one in by_task) for seed in seeds])
        mean = statistics.fmean(statistics.fmean(one.values()) for one in by_task)
        return Statistic(mean, None, min(map(len, by_task)))

    def by_seed(self, task: str, score: Score) -> dict[int, float]:
        """Return the score of one task by seed, for the runs that have it."""
        values = {run.record.seed: score(run, task) for run in self.runs[task]}
        return {seed: value for seed, value in values.items() if value is not None}


def training_of(row: Row) -> str:
    """Return what is the same in runs that differ in their seed only, of one method."""
    return repr([row.budget.asked, mixture_of(row)])


def mixture_of(row: Row) -> str:
    """Return the tasks of a run and, of several, how they are weighted and mixed."""
    same: list[object] = [sorted(row.tasks)]
    if len(row.tasks) > 1:
        weights = {task: row.record.tasks[task].loss_weight for task in row.tasks}
        same += [sorted(weights.items()), mixing_of(row)]
    return repr(same)


def mixing_of(row: Row) -> list[tuple[str, object]]:
    """Return the settings by which the tasks of a multitask run are mixed."""
    mixing = "data.mixing."
    return sorted(one for one in row.record.settings.items() if one[0].startswith(mixing))


def one_a_seed(rows: Sequence[Row]) -> tuple[list[Row], list[LeftOut]]:
    """Keep the last of runs that repeat each other, by path."""
    last = {(training_of(row), row.record.seed): row for row in rows}
    left_out = [
        LeftOut(row.path, f"repeated by {last[training_of(row), row.record.seed].path}")
        for row in rows
        if last[training_of(row), row.record.seed] is not row
    ]
    return list(last.values()), left_out


def statistic_of(values: Sequence[float]) -> Statistic:
    """Return the mean over seeds, and what else is known of their values."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    mean = statistics.fmean(values)
    return Statistic(mean, deviation, len(values), min(values), max(values))
