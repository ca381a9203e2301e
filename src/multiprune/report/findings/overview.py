"""What a report shows, as numbers: models, and multitask against the best ensemble at each budget.

A *model* here is a set of runs that differ in their seed only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.report.findings.against_ensembles import (
    Comparison,
    comparisons_of,
    with_differences,
)
from multiprune.report.findings.auxiliary import Effect, effects_of, with_effects
from multiprune.report.findings.by_language import ByLanguage, by_language, by_setting
from multiprune.report.findings.comparison import comparable, methods
from multiprune.report.findings.contender import one_a_seed
from multiprune.report.findings.example_draws import ExampleDraws
from multiprune.report.findings.ladders import Ladders, ladders
from multiprune.report.findings.model import Model, models_of
from multiprune.report.findings.transfer import Transfer, by_stage, transfer
from multiprune.report.records.frame import SPLITS, Score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.records.frame import Frame, LeftOut, Row


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All that a report shows of finished runs.

    Attributes:
        rows: every finished run, also those that repeat others; none of one language beside those
            of the shared setting, and none that only pretrains beside those of tasks.
        tasks: of the suite: the tasks that most multitask runs have, or all there are.
        of: what is counted.
        split: ``test`` where all runs have test scores, else ``validation``.
        models: by method and size.
        effects: of tasks on each other.
        by_language: what is known of runs of one language; None where there are none beside others.
        ladders: what is known of models of many sizes; None where there are none.
        pretraining: the runs that only pretrain, beside those of tasks.
        transfer: what is known of encoders that were pretrained in runs before; None where none
            was.
        left_out: runs that are in the list of runs at most.
    """

    rows: Sequence[Row]
    tasks: tuple[str, ...]
    of: str
    dense: int
    split: str
    models: Sequence[Model]
    comparisons: Sequence[Comparison]
    effects: Sequence[Effect]
    by_language: ByLanguage | None
    ladders: Ladders | None
    pretraining: Sequence[Row]
    transfer: Transfer | None
    left_out: Sequence[LeftOut]

    @property
    def all_rows(self) -> list[Row]:
        """Every finished run, also those of one language and those that only pretrain."""
        of_languages = self.by_language.rows if self.by_language is not None else ()
        return [*self.rows, *of_languages, *self.pretraining]

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


def overview(frame: Frame, *, ignore: Sequence[str] = (), by_examples: bool = False) -> Overview:
    """Compare the finished runs of ``frame``; ``ignore`` as in :func:`methods`.

    ``by_examples`` takes runs with other numbers of training examples as other models, which are
    not compared here.

    Raises:
        ValueError: if there is none, or they cannot be compared.
    """
    if not frame.rows:
        first = frame.left_out[0]
        raise ValueError(f"At least one run must be finished, but {first.path}: {first.reason}.")
    rows, pretraining = by_stage(frame.rows)
    shared, own = (rows, []) if by_examples else by_setting(rows)
    comparable(shared, by_examples=by_examples)
    models, left_out = _models(shared, ignore, by_examples)
    of_languages = by_language(shared, own, ignore=ignore) if own else None
    tasks = _suite(shared)
    has_tests = all(row.test_score(task) is not None for row in shared for task in row.tasks)
    comparisons = [] if by_examples else comparisons_of(models, tasks)
    effects = [] if by_examples else effects_of(models)
    compared = [*(one.sides or () for one in comparisons), *(one.sides for one in effects)]
    draws = ExampleDraws(side for sides in compared for side in sides)
    return Overview(
        rows=shared,
        tasks=tasks,
        of=shared[0].budget.scope,
        dense=shared[0].budget.dense,
        split="test" if has_tests else "validation",
        models=models,
        comparisons=[with_differences(one, draws) for one in comparisons],
        effects=[with_effects(one, draws) for one in effects],
        by_language=of_languages,
        ladders=None if by_examples else ladders(models),
        pretraining=pretraining,
        transfer=None if by_examples else transfer(models, pretraining),
        left_out=[
            *frame.left_out,
            *left_out,
            *(of_languages.left_out if of_languages is not None else ()),
        ],
    )


def _models(
    rows: Sequence[Row], ignore: Sequence[str], by_examples: bool
) -> tuple[list[Model], list[LeftOut]]:
    """Return the models of all methods, and the runs that others repeat."""
    models: list[Model] = []
    left_out: list[LeftOut] = []
    for method, own in methods(rows, ignore=ignore).items():
        for alike in _by_examples(own) if by_examples else [own]:
            once, repeated = one_a_seed(alike)
            left_out += repeated
            models += models_of(method, once)
    return models, left_out


def _by_examples(rows: Sequence[Row]) -> list[list[Row]]:
    alike: dict[str, list[Row]] = {}
    for row in rows:
        alike.setdefault(repr(sorted(row.record.examples.items())), []).append(row)
    return list(alike.values())


def _suite(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the tasks that most multitask runs have; of equals, the most tasks."""
    counts = Counter(tuple(sorted(row.tasks)) for row in rows if len(row.tasks) > 1)
    if counts:
        return max(counts, key=lambda tasks: (counts[tasks], len(tasks), tasks))
    return tuple(sorted({task for row in rows for task in row.tasks}))
