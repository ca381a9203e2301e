"""One task with fewer and fewer training examples: alone, and together with the others.

Alone is a model of the multitask model's size, or one that has an even share of it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from multiprune.report.candidates import TOLERANCE, of_size
from multiprune.report.page.intervals import interval_text
from multiprune.report.page.plots import Line, ends, over_examples, short
from multiprune.report.page.section import (
    Figure,
    Section,
    Table,
    joined,
    plural,
    slug,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.candidates import Model
    from multiprune.report.compare import Difference
    from multiprune.report.study import Study
    from multiprune.runs.frame import FinishedRun

#: What a model of one task may have: the size of the multitask model, or that over all tasks.
EQUAL_SIZE, EQUAL_TOTAL = "equal size", "equal total"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A multitask model and one of a task alone, trained with as many examples of that task.

    Attributes:
        budget: ``EQUAL_SIZE`` or ``EQUAL_TOTAL``.
        size: parameters that multitask models were asked to keep.
        together: None where there is none, as ``alone``; then ``reason`` says why.
        difference: together less alone on the task.
    """

    method: str
    task: str
    examples: int
    budget: str
    size: int
    together: Model | None
    alone: Model | None
    reason: str | None
    difference: Difference | None = None


def answer(study: Study) -> Section | None:
    """Show each task whose number of examples varies, alone and together with the others.

    Raises:
        ValueError: if none varies, runs did not note the numbers, or two vary in one run.
    """
    if not study.by_examples:
        return None
    varied = models_by_examples(study)
    pairs = pairs_of(study, varied)
    differences = [pair.difference for pair in pairs if pair.difference is not None]
    return Section(
        name="examples",
        title="How many training examples",
        answer=_headline(pairs),
        text=[
            f"Scores of {joined(list(varied))} on {study.split} data, with more and fewer examples "
            "of that task, alone and with all examples of the others.",
            f"Equal size: alone is as large as together (within {100 * TOLERANCE:.0f} %). Equal "
            f"total: alone has the largest model within 1/{len(study.tasks)} of that size.",
            *(
                interval_text(differences)
                if differences
                else ["No model of these tasks alone has a seed in common with one of all tasks."]
            ),
        ],
        figures=[
            _figure(study, method, task, lines)
            for task, models in varied.items()
            for method in study.methods
            if (lines := _lines(study, [one for one in models if one.method == method], task))
        ],
        tables=[
            _table(study, pairs, EQUAL_SIZE),
            _table(study, pairs, EQUAL_TOTAL),
            _missing(pairs),
        ],
    )


def examples_of(model: Model, task: str) -> int:
    """Return the number of training examples of a task."""
    return model.first.record.examples[task]


def models_by_examples(study: Study) -> dict[str, list[Model]]:
    """Return, by task that varies, the models that have all examples of the other tasks."""
    largest = _largest(study.runs)
    varied = [
        task
        for task in sorted(largest)
        if len({run.record.examples[task] for run in study.runs if task in run.tasks}) > 1
    ]
    if not varied:
        raise ValueError(
            f"`--by-examples` needs runs that differ in their number of training examples, but all "
            f"{len(study.runs)} have the same."
        )
    _check_one_at_a_time(study.runs, largest)
    return {
        task: [
            model
            for model in study.models
            if task in model.tasks
            and all(examples_of(model, t) == largest[t] for t in model.tasks if t != task)
        ]
        for task in varied
    }


def pairs_of(study: Study, varied: Mapping[str, Sequence[Model]]) -> list[Pair]:
    """Pair models of each task, method, size, number of examples and way to compare."""
    pairs = [pair for task, models in varied.items() for pair in _pairs(study, task, models)]
    sides = [
        (pair.together, pair.alone) if pair.together and pair.alone else None for pair in pairs
    ]
    found = iter(study.differences([both for both in sides if both is not None]))
    return [
        pair if both is None else _with_difference(pair, next(found))
        for pair, both in zip(pairs, sides, strict=True)
    ]


def _with_difference(pair: Pair, found: Mapping[str, Difference]) -> Pair:
    difference = found.get(pair.task)
    reason = None if difference is not None else "the two have no seed in common"
    return replace(pair, difference=difference, reason=reason)


def _largest(runs: Sequence[FinishedRun]) -> dict[str, int]:
    largest: dict[str, int] = {}
    for run in runs:
        for task in run.tasks:
            if task not in run.record.examples:
                raise ValueError(
                    "Runs are compared by their numbers of training examples, but the results of "
                    f"{run.path} do not hold that of {task}."
                )
            largest[task] = max(largest.get(task, 0), run.record.examples[task])
    return largest


def _check_one_at_a_time(runs: Sequence[FinishedRun], largest: Mapping[str, int]) -> None:
    for run in runs:
        fewer = [task for task in run.tasks if run.record.examples[task] < largest[task]]
        if len(fewer) > 1:
            whole = next(
                one for one in runs if one.record.examples.get(fewer[0]) == largest[fewer[0]]
            )
            raise ValueError(
                "Only one task of a run may have fewer training examples than elsewhere, but "
                f"{run.path} has fewer of {' and of '.join(fewer)}, and {whole.path} has "
                f"{largest[fewer[0]]:,} of {fewer[0]}."
            )


def _pairs(study: Study, task: str, models: Sequence[Model]) -> list[Pair]:
    pairs = []
    for method in study.methods:
        own = [model for model in models if model.method == method]
        suite = [model for model in own if model.tasks == study.tasks and len(model.tasks) > 1]
        sizes = sorted({model.asked for model in suite})
        numbers = sorted({examples_of(model, task) for model in own})
        for size, number, budget in itertools.product(sizes, numbers, (EQUAL_SIZE, EQUAL_TOTAL)):
            same = [model for model in own if examples_of(model, task) == number]
            together = _best(study, [one for one in same if one in suite and one.asked == size])
            room = size if budget == EQUAL_SIZE else size // len(study.tasks)
            single = [model for model in same if model.tasks == (task,)]
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
    fitting = [model for model in models if model.parameters <= room]
    return max(fitting, key=lambda model: model.parameters, default=None)


def _best(study: Study, models: Sequence[Model]) -> Model | None:
    """Of models with other mixings, return that with the best mean validation score."""

    def score(model: Model) -> float:
        mean = study.mean(model, "validation")
        return mean.mean if mean is not None else 0.0

    return max(models, key=score, default=None)


def _reason(together: Model | None, alone: Model | None, budget: str, room: int) -> str | None:
    if together is None:
        return "there is no multitask run of this size with as many examples"
    if alone is None:
        size = f"of {room:,} parameters" if budget == EQUAL_SIZE else f"within {room:,} parameters"
        return f"there is no run of the task alone {size} with as many examples"
    return None


def _headline(pairs: Sequence[Pair]) -> str:
    known = [pair for pair in pairs if pair.difference is not None and pair.budget == EQUAL_SIZE]
    if not known:
        return ""
    fewest = min(known, key=lambda pair: pair.examples)
    return (
        f"With {plural(fewest.examples, 'example')}, {fewest.task} scores {fewest.difference} more "
        f"together with the others than alone, at equal size ({fewest.method})."
    )


def _lines(study: Study, models: Sequence[Model], task: str) -> list[Line]:
    """Draw a line for each size, alone and together; a color for each size."""
    served = {
        "together": [one for one in models if one.tasks == study.tasks and len(one.tasks) > 1],
        "alone": [one for one in models if one.tasks == (task,)],
    }
    sizes = sorted({model.asked for own in served.values() for model in own})
    lines = []
    for kind, own in served.items():
        for color, size in enumerate(sizes):
            points = {
                examples_of(model, task): score
                for model in own
                if model.asked == size and (score := study.spreads(model).get(task)) is not None
            }
            style = "-" if kind == "together" else "--"
            lines.append(Line(f"{kind}, {short(size)}", color, style, sorted(points.items())))
    return [line for line in lines if line.points]


def _figure(study: Study, method: str, task: str, lines: Sequence[Line]) -> Figure:
    label = f"{study.split} score, {task}"
    return Figure(
        name=f"examples-{study.methods.index(method)}-{slug(task)}",
        caption=f"{task} by its number of training examples, {method}; parameters kept.",
        alt=f"Scores of {task} over training examples: {ends(lines, 'with', '{:,}'.format)}.",
        draw=lambda: over_examples(lines, label),
    )


def _table(study: Study, pairs: Sequence[Pair], budget: str) -> Table:
    rows = (
        {
            "task": pair.task,
            "method": pair.method,
            "kept together": pair.together.parameters,
            "kept alone": pair.alone.parameters,
            "examples": pair.examples,
            "alone": study.spreads(pair.alone).get(pair.task),
            "together": study.spreads(pair.together).get(pair.task),
            "together - alone": pair.difference,
            "seeds": len(pair.difference.seeds) if pair.difference is not None else None,
        }
        for pair in pairs
        if pair.budget == budget and pair.together is not None and pair.alone is not None
    )
    name, caption = budget.replace(" ", "-"), f"{budget.capitalize()}, {study.split} scores"
    return table(f"examples-{name}", caption, rows)


def _missing(pairs: Sequence[Pair]) -> Table:
    rows = (
        {
            "task": pair.task,
            "method": pair.method,
            "size together": pair.size,
            "examples": pair.examples,
            "budget": pair.budget,
            "reason": pair.reason,
        }
        for pair in pairs
        if pair.reason is not None
    )
    return table("examples-missing", "Missing, and why", rows, fold=12)
