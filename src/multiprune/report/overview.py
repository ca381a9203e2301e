"""What a report shows, as numbers: models, and multitask against the best ensemble at each budget.

A *model* here is a set of runs that differ in their seed only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.budget.budget import CountBudget
from multiprune.report.comparison import comparable, methods
from multiprune.report.contender import Contender, Score, one_a_seed, training_of
from multiprune.report.difference import Difference, score_difference
from multiprune.report.ensemble import Ensemble, Request, best_ensemble
from multiprune.report.frame import LeftOut, Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.frame import Frame

SPLITS: Mapping[str, Score] = {"validation": Row.validation_score, "test": Row.test_score}

#: Stands for the mean over tasks where a task could stand.
MEAN = "mean"


@dataclass(frozen=True, kw_only=True)
class Model:
    """Runs of one method that differ in their seed only."""

    method: str
    contender: Contender

    @property
    def runs(self) -> Sequence[Row]:
        """One run a seed."""
        return next(iter(self.contender.runs.values()))

    @property
    def tasks(self) -> tuple[str, ...]:
        """By name."""
        return tuple(self.contender.runs)

    @property
    def asked(self) -> int:
        """The parameters asked for."""
        return self.runs[0].asked


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The best ensemble of one method within the size of a multitask model, and that model.

    Attributes:
        ensemble: None where there is none; then ``reason`` says why.
        differences: multitask less the best ensemble, by split and by task or ``MEAN``.
    """

    method: str
    budget: int
    ensemble: Ensemble | None
    reason: str | None
    differences: Mapping[str, Mapping[str, Difference]]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All that a report shows of finished runs.

    Attributes:
        rows: every finished run, also those that repeat others.
        tasks: of the suite: the tasks that most multitask runs have, or all there are.
        of: what is counted.
        split: ``test`` where all runs have test scores, else ``validation``.
        models: by method and size.
        left_out: runs that are in the list of runs at most.
    """

    rows: Sequence[Row]
    tasks: tuple[str, ...]
    of: str
    dense: int
    split: str
    models: Sequence[Model]
    comparisons: Sequence[Comparison]
    left_out: Sequence[LeftOut]

    @property
    def score(self) -> Score:
        """Reads the score of a task on ``split``."""
        return SPLITS[self.split]

    @property
    def methods(self) -> list[str]:
        """By name."""
        return list(dict.fromkeys(model.method for model in self.models))

    def multitask(self, method: str) -> list[Model]:
        """Return the models of the whole suite, the smallest first."""
        return [
            model
            for model in self.models
            if model.method == method and model.tasks == self.tasks and len(self.tasks) > 1
        ]

    def single(self, method: str, task: str) -> list[Model]:
        """Return the models of one task alone, the smallest first."""
        return [model for model in self.models if model.method == method and model.tasks == (task,)]


def overview(frame: Frame, *, ignore: Sequence[str] = ()) -> Overview:
    """Compare the finished runs of ``frame``; ``ignore`` as in :func:`methods`.

    Raises:
        ValueError: if there is none, or they cannot be compared.
    """
    if not frame.rows:
        first = frame.left_out[0]
        raise ValueError(f"At least one run must be finished, but {first.path}: {first.reason}.")
    comparable(frame.rows)
    models: list[Model] = []
    left_out = list(frame.left_out)
    for method, rows in methods(frame.rows, ignore=ignore).items():
        rows, repeated = one_a_seed(rows)
        left_out += repeated
        models += _models(method, rows)
    tasks = _suite(frame.rows)
    has_tests = all(row.test_score(task) is not None for row in frame.rows for task in row.tasks)
    return Overview(
        rows=frame.rows,
        tasks=tasks,
        of=frame.rows[0].of,
        dense=frame.rows[0].dense,
        split="test" if has_tests else "validation",
        models=models,
        comparisons=_comparisons(models, tasks),
        left_out=left_out,
    )


def _models(method: str, rows: Sequence[Row]) -> list[Model]:
    alike: dict[str, list[Row]] = {}
    for row in rows:
        alike.setdefault(training_of(row), []).append(row)
    models = []
    for runs in alike.values():
        runs.sort(key=lambda run: run.seed)
        # The budget must hold whichever seed is taken.
        size = max(run.ledger.kept_in(run.of) for run in runs)
        served = dict.fromkeys(sorted(runs[0].tasks), runs)
        models.append(Model(method=method, contender=Contender(size, served)))
    return sorted(models, key=lambda model: (model.tasks, model.contender.parameters))


def _suite(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the tasks that most multitask runs have; of equals, the most tasks."""
    counts = Counter(tuple(sorted(row.tasks)) for row in rows if len(row.tasks) > 1)
    if counts:
        return max(counts, key=lambda tasks: (counts[tasks], len(tasks), tasks))
    return tuple(sorted({task for row in rows for task in row.tasks}))


def _comparisons(models: Sequence[Model], tasks: tuple[str, ...]) -> list[Comparison]:
    """Compare at the sizes of multitask models, or at even shares of the sizes of single tasks."""
    if len(tasks) == 1:
        return []
    comparisons = []
    for method in dict.fromkeys(model.method for model in models):
        own = [model for model in models if model.method == method]
        suite = [model for model in own if model.tasks == tasks]
        single = [model for model in own if len(model.tasks) == 1 and model.tasks[0] in tasks]
        if not single:
            continue
        sizes = {model.contender.parameters for model in suite}
        even = {len(tasks) * model.contender.parameters for model in single}
        rows = [run for model in (*suite, *single) for run in model.runs]
        comparisons += [_compare(method, rows, tasks, size) for size in sorted(sizes or even)]
    return comparisons


def _compare(method: str, rows: Sequence[Row], tasks: tuple[str, ...], budget: int) -> Comparison:
    try:
        alone = {row.tasks[0] for row in rows if len(row.tasks) == 1}
        if absent := sorted(set(tasks) - alone):
            raise ValueError(f"There is no single-task run of {', '.join(absent)}.")
        request = Request(CountBudget(count=budget, of=rows[0].of))
        ensemble = best_ensemble(method, rows, request)
    except ValueError as error:
        return Comparison(
            method=method, budget=budget, ensemble=None, reason=str(error), differences={}
        )
    differences = {split: _differences(ensemble, score) for split, score in SPLITS.items()}
    return Comparison(
        method=method, budget=budget, ensemble=ensemble, reason=None, differences=differences
    )


def _differences(ensemble: Ensemble, score: Score) -> dict[str, Difference]:
    if "multitask" not in ensemble.contenders:
        return {}
    ours, theirs = ensemble.contenders["multitask"], ensemble.contenders["best"]
    known = [task for task in ours.tasks_with(score) if task in theirs.tasks_with(score)]
    groups = {task: [task] for task in known} | ({MEAN: known} if known else {})
    found = {
        name: score_difference(ours, theirs, members, score) for name, members in groups.items()
    }
    return {name: one for name, one in found.items() if one is not None}
