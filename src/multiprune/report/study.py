"""Finished runs that may be compared: their models, and the scores of these."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from multiprune.report.candidates import Model, models_of, one_a_seed
from multiprune.report.compare import MEAN
from multiprune.report.methods import check_comparable, methods
from multiprune.report.scores import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.candidates import Candidate
    from multiprune.report.compare import Difference, Spread
    from multiprune.runs.frame import FinishedRun, Runs, Skipped


@dataclass(frozen=True, kw_only=True)
class Study:
    """Finished runs, of which those that differ in their seed only are a model.

    Attributes:
        runs: those that are compared; runs of one language, and those that only pretrain, stand
            apart where there are others.
        of_language: runs that were trained in one language, beside those of all.
        pretraining: runs that only pretrain, beside those of tasks.
        models: of ``runs``, by method and size.
        tasks: of the suite: the tasks that most multitask runs have, or all there are.
        split: ``test`` where all runs have test scores, else ``validation``.
        skipped: runs that are in no comparison.
        ignore: settings that may differ within one method.
        reads_masks: whether to read the masks of runs.
        by_examples: whether runs are compared by their numbers of training examples.
    """

    runs: Sequence[FinishedRun]
    of_language: Sequence[FinishedRun]
    pretraining: Sequence[FinishedRun]
    models: Sequence[Model]
    tasks: tuple[str, ...]
    split: str
    skipped: Sequence[Skipped]
    ignore: Sequence[str] = ()
    reads_masks: bool = False
    by_examples: bool = False

    @classmethod
    def from_runs(
        cls,
        found: Runs,
        *,
        ignore: Sequence[str] = (),
        reads_masks: bool = False,
        by_examples: bool = False,
    ) -> Study:
        """Group the finished runs; ``ignore`` as in :func:`.methods.methods`.

        ``by_examples`` takes runs with other numbers of training examples as other models.

        Raises:
            ValueError: if there is none, or they cannot be compared.
        """
        if not found.finished:
            first = found.skipped[0]
            raise ValueError(f"No run is finished: {first.path}: {first.reason}.")
        runs, pretraining = by_stage(found.finished)
        shared, of_language = (runs, []) if by_examples else _by_setting(runs)
        check_comparable(shared, by_examples=by_examples)
        models, repeated = _models(shared, ignore, by_examples)
        tested = all(run.score(task, "test") is not None for run in shared for task in run.tasks)
        return cls(
            runs=shared,
            of_language=of_language,
            pretraining=pretraining,
            models=models,
            tasks=_suite(shared),
            split="test" if tested else "validation",
            skipped=[*found.skipped, *repeated],
            ignore=ignore,
            reads_masks=reads_masks,
            by_examples=by_examples,
        )

    @property
    def all_runs(self) -> list[FinishedRun]:
        """Every finished run."""
        return [*self.runs, *self.of_language, *self.pretraining]

    @cached_property
    def scores(self) -> Scores:
        """The scores of all finished runs."""
        return Scores(self.all_runs)

    @property
    def scope(self) -> str:
        """What the budget counts."""
        return self.runs[0].budget.scope

    @property
    def dense(self) -> int:
        """The parameters of one dense model that the budget counts."""
        return self.runs[0].budget.dense

    @property
    def methods(self) -> list[str]:
        """By name."""
        return list(dict.fromkeys(model.method for model in self.models))

    def multitask(self, method: str) -> list[Model]:
        """Return the models of the whole suite, the smallest first."""
        own = [model for model in self.models if model.method == method]
        return [model for model in own if model.tasks == self.tasks and len(self.tasks) > 1]

    def single(self, method: str, task: str) -> list[Model]:
        """Return the models of one task alone, the smallest first."""
        return [one for one in self.models if one.method == method and one.tasks == (task,)]

    def by_seed(self, model: Model, split: str | None = None) -> dict[int, float]:
        """Return the mean over tasks of the runs of a model, by seed."""
        tasks = list(self.scores.by_task(model, split or self.split).values())
        seeds = tasks[0] if tasks else ()
        return {seed: statistics.fmean(values[seed] for values in tasks) for seed in seeds}

    def spreads(self, candidate: Candidate, split: str | None = None) -> dict[str, Spread]:
        """Return the scores of a candidate by task, and ``MEAN`` over those that are known."""
        return self.scores.spreads(candidate, split or self.split)

    def mean(self, candidate: Candidate, split: str | None = None) -> Spread | None:
        """Return the mean score over the tasks that are known; None if none is."""
        return self.spreads(candidate, split).get(MEAN)

    def differences(
        self, pairs: Sequence[tuple[Candidate, Candidate]]
    ) -> list[dict[str, Difference]]:
        """Return how far the first of each pair is above the second, by task, and on the mean."""
        return self.scores.differences(pairs, self.split)


def by_stage(
    runs: Sequence[FinishedRun],
) -> tuple[list[FinishedRun], list[FinishedRun]]:
    """Split runs to those of tasks and those that only pretrain, if there are both.

    Otherwise all of them are compared with one another.
    """
    pretraining = [run for run in runs if run.record.pretrains]
    others = [run for run in runs if not run.record.pretrains]
    return (others, pretraining) if others else (pretraining, [])


def _by_setting(
    runs: Sequence[FinishedRun],
) -> tuple[list[FinishedRun], list[FinishedRun]]:
    """Split runs to those of all languages and those of one, if there are both."""
    own = [run for run in runs if run.record.language is not None]
    shared = [run for run in runs if run.record.language is None]
    return (shared, own) if shared else (own, [])


def _models(
    runs: Sequence[FinishedRun], ignore: Sequence[str], by_examples: bool
) -> tuple[list[Model], list[Skipped]]:
    """Return the models of all methods, and the runs that others repeat."""
    models: list[Model] = []
    skipped: list[Skipped] = []
    for method, own in methods(runs, ignore=ignore).items():
        for alike in _by_examples(own) if by_examples else [own]:
            once, repeated = one_a_seed(alike)
            skipped += repeated
            models += models_of(method, once)
    return models, skipped


def _by_examples(runs: Sequence[FinishedRun]) -> list[list[FinishedRun]]:
    alike: dict[str, list[FinishedRun]] = {}
    for run in runs:
        alike.setdefault(repr(sorted(run.record.examples.items())), []).append(run)
    return list(alike.values())


def _suite(runs: Sequence[FinishedRun]) -> tuple[str, ...]:
    """Return the tasks that most multitask runs have; of equals, the most tasks."""
    counts = Counter(tuple(sorted(run.tasks)) for run in runs if len(run.tasks) > 1)
    if counts:
        return max(counts, key=lambda tasks: (counts[tasks], len(tasks), tasks))
    return tuple(sorted({task for run in runs for task in run.tasks}))
