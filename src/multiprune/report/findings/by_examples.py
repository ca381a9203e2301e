"""One task with fewer and fewer training examples: alone, and together with the others.

Alone is a model of the multitask model's size, or one that has an even share of it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from multiprune.report.findings.difference import score_difference
from multiprune.report.findings.example_draws import ExampleDraws
from multiprune.report.findings.model import of_size
from multiprune.report.records.frame import SPLITS, Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.findings.contender import Contender
    from multiprune.report.findings.difference import Difference
    from multiprune.report.findings.model import Model
    from multiprune.report.findings.overview import Overview

#: What a model of one task may have: the size of the multitask model, or that over all tasks.
EQUAL_SIZE, EQUAL_TOTAL = "equal size", "equal total"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A multitask model and one of a task alone, trained with as many examples of that task.

    Attributes:
        budget: ``EQUAL_SIZE`` or ``EQUAL_TOTAL``.
        size: parameters that multitask models were asked to keep.
        together: None where there is none, as ``alone``; then ``reason`` says why.
        differences: together less alone on the task, by split.
    """

    method: str
    task: str
    examples: int
    budget: str
    size: int
    together: Model | None
    alone: Model | None
    reason: str | None
    differences: Mapping[str, Difference] = field(default_factory=dict)

    @property
    def sides(self) -> tuple[Contender, Contender] | None:
        """Both models, if there are both."""
        if self.together is None or self.alone is None:
            return None
        return self.together.contender, self.alone.contender


@dataclass(frozen=True)
class ByExamples:
    """All pairs, by task, method, size and number of examples.

    Attributes:
        models: by task, those whose numbers of examples of other tasks are the largest.
    """

    models: Mapping[str, Sequence[Model]]
    pairs: Sequence[Pair]


def examples_of(model: Model, task: str) -> int:
    """Return the number of training examples of a task."""
    return model.runs[0].record.examples[task]


def by_examples(overview: Overview) -> ByExamples:
    """Pair models of each task whose number of training examples varies.

    Raises:
        ValueError: if none varies, runs did not note the numbers, or two vary in one run.
    """
    largest = _largest(overview.rows)
    varied = [
        task
        for task in sorted(largest)
        if len({row.record.examples[task] for row in overview.rows if task in row.tasks}) > 1
    ]
    if not varied:
        raise ValueError(
            "Runs by numbers of examples must differ in that of a task, but all of "
            f"{len(overview.rows)} have the same."
        )
    _check_one_at_a_time(overview.rows, largest)
    models = {
        task: [model for model in overview.models if _varies(model, task, largest)]
        for task in varied
    }
    pairs = [one for task in varied for one in _pairs(overview, task, models[task])]
    draws = ExampleDraws(side for one in pairs for side in one.sides or ())
    return ByExamples(models, [_with_difference(one, draws) for one in pairs])


def _largest(rows: Sequence[Row]) -> dict[str, int]:
    largest: dict[str, int] = {}
    for row in rows:
        for task in row.tasks:
            if task not in row.record.examples:
                raise ValueError(
                    "Runs are compared by their numbers of training examples, but the results of "
                    f"{row.path} do not hold that of {task}."
                )
            largest[task] = max(largest.get(task, 0), row.record.examples[task])
    return largest


def _check_one_at_a_time(rows: Sequence[Row], largest: Mapping[str, int]) -> None:
    for row in rows:
        fewer = [task for task in row.tasks if row.record.examples[task] < largest[task]]
        if len(fewer) > 1:
            whole = next(
                one for one in rows if one.record.examples.get(fewer[0]) == largest[fewer[0]]
            )
            raise ValueError(
                "Only one task of a run may have fewer training examples than elsewhere, but "
                f"{row.path} has fewer of {' and of '.join(fewer)}, and {whole.path} has "
                f"{largest[fewer[0]]:,} of {fewer[0]}."
            )


def _varies(model: Model, task: str, largest: Mapping[str, int]) -> bool:
    return task in model.tasks and all(
        examples_of(model, other) == largest[other] for other in model.tasks if other != task
    )


def _pairs(overview: Overview, task: str, models: Sequence[Model]) -> list[Pair]:
    """Return a pair for each method, size, number of examples and way to compare."""
    pairs = []
    for method in overview.methods:
        own = [model for model in models if model.method == method]
        suite = [model for model in own if model.tasks == overview.tasks and len(model.tasks) > 1]
        sizes = sorted({model.asked for model in suite})
        numbers = sorted({examples_of(model, task) for model in own})
        for size, number, budget in itertools.product(sizes, numbers, (EQUAL_SIZE, EQUAL_TOTAL)):
            same = [one for one in own if examples_of(one, task) == number]
            together = _best([one for one in same if one in suite and one.asked == size])
            room = size if budget == EQUAL_SIZE else size // len(overview.tasks)
            single = [one for one in same if one.tasks == (task,)]
            alone = of_size(single, room) if budget == EQUAL_SIZE else _within(single, room)
            pairs.append(
                Pair(
                    method=method,
                    task=task,
                    examples=number,
                    budget=budget,
                    size=size,
                    together=together,
                    alone=alone,
                    reason=_reason(together, alone, budget, room),
                )
            )
    return pairs


def _within(models: Sequence[Model], room: int) -> Model | None:
    fitting = [model for model in models if model.contender.parameters <= room]
    return max(fitting, key=lambda model: model.contender.parameters, default=None)


def _best(models: Sequence[Model]) -> Model | None:
    """Of models with other mixings, return that with the best mean validation score."""

    def score(model: Model) -> float:
        mean = model.contender.mean_score(Row.validation_score)
        return mean.mean if mean is not None else 0.0

    return max(models, key=score, default=None)


def _reason(together: Model | None, alone: Model | None, budget: str, room: int) -> str | None:
    if together is None:
        return "there is no multitask run of this size with as many examples"
    if alone is None:
        size = f"of {room:,} parameters" if budget == EQUAL_SIZE else f"within {room:,} parameters"
        return f"there is no run of the task alone {size} with as many examples"
    return None


def _with_difference(pair: Pair, draws: ExampleDraws) -> Pair:
    if pair.sides is None:
        return pair
    ours, theirs = pair.sides
    found = {split: score_difference(ours, theirs, [pair.task], split, draws) for split in SPLITS}
    differences = {split: one for split, one in found.items() if one is not None}
    reason = None if differences else "the two have no seed in common"
    return replace(pair, differences=differences, reason=reason)
