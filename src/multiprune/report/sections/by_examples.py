"""The section on scores of a task against its number of training examples."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from multiprune.report.findings.by_examples import EQUAL_SIZE, EQUAL_TOTAL, examples_of
from multiprune.report.findings.model import TOLERANCE
from multiprune.report.page import blocks
from multiprune.report.page.blocks import Figure, Section, Table
from multiprune.report.page.interval_text import interval_text
from multiprune.report.page.plots import Line, over_examples, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.findings.by_examples import ByExamples
    from multiprune.report.findings.model import Model
    from multiprune.report.findings.overview import Overview


def by_examples_section(overview: Overview, found: ByExamples) -> Section:
    """Show each task whose number of examples varies, alone and together with the others."""
    figures = [
        _figure(overview, method, task, lines)
        for task, models in found.models.items()
        for method in overview.methods
        if (lines := _lines(overview, [one for one in models if one.method == method], task))
    ]
    tables = [
        _pairs(overview, found, EQUAL_SIZE, "Models of equal size: alone as large as together"),
        _pairs(
            overview,
            found,
            EQUAL_TOTAL,
            f"Equal total: alone at most 1/{len(overview.tasks)} of the size together",
        ),
        _missing(found),
    ]
    return Section(
        name="examples",
        title="How many examples",
        text=_text(overview, found),
        figures=figures,
        tables=[one for one in tables if one.rows],
    )


def _text(overview: Overview, found: ByExamples) -> list[str]:
    split, tasks = overview.split, overview.tasks
    text = [
        f"Scores of {', '.join(found.models)} on {split} data, trained with more and fewer "
        "examples of that task, alone and together with all examples of the others. A point is "
        "the mean over seeds, a band goes from the lowest to the highest seed."
    ]
    differences = [one.differences[split] for one in found.pairs if split in one.differences]
    if not differences:
        return [*text, "No model of these tasks alone has a seed in common with one of all tasks."]
    return [
        *text,
        "The same budget means two things. Of equal size: the task alone has a model as large as "
        f"the multitask model, within {100 * TOLERANCE:.0f} %, so that serving all tasks so costs "
        f"{len(tasks)} times as much. Equal total: it has the largest model that was trained "
        f"within an even share, 1/{len(tasks)}, of the multitask model's size.",
        "Differences are together less alone, on this task, paired by seed.",
        *interval_text(differences),
    ]


def _lines(overview: Overview, models: Sequence[Model], task: str) -> list[Line]:
    """Draw a line for each size, alone and together; a color for each size."""
    served = {
        "together": [one for one in models if one.tasks == overview.tasks and len(one.tasks) > 1],
        "alone": [one for one in models if one.tasks == (task,)],
    }
    sizes = sorted({model.asked for those in served.values() for model in those})
    lines = []
    for kind, those in served.items():
        for size in sizes:
            points = {
                examples_of(model, task): score
                for model in those
                if model.asked == size
                and (score := model.contender.score(task, overview.score)) is not None
            }
            lines.append(
                Line(
                    label=f"{kind}, {short(size)}",
                    color=sizes.index(size),
                    style="-" if kind == "together" else "--",
                    points=[(number, points[number]) for number in sorted(points)],
                )
            )
    return [line for line in lines if line.points]


def _figure(overview: Overview, method: str, task: str, lines: Sequence[Line]) -> Figure:
    seen = []
    for line in lines:
        (first, low), (last, high) = line.points[0], line.points[-1]
        seen.append(
            f"{line.label} from {low.mean:.3f} with {first:,} to {high.mean:.3f} with {last:,}"
        )
    label, name = f"{overview.split} score, {task}", re.sub(r"\W", "_", task)
    return Figure(
        name=f"examples-{name}-{overview.methods.index(method)}",
        caption=f"{task} by its number of training examples, {method}; parameters kept.",
        alt=f"Scores of {task} over training examples: {'; '.join(seen)}.",
        draw=lambda: over_examples(lines, label),
    )


def _pairs(overview: Overview, found: ByExamples, budget: str, caption: str) -> Table:
    rows = []
    for one in found.pairs:
        if one.budget != budget or one.sides is None:
            continue
        together, alone = one.sides
        difference = one.differences.get(overview.split)
        rows.append(
            [
                blocks.text(one.task),
                blocks.text(one.method),
                blocks.count(together.parameters),
                blocks.count(alone.parameters),
                blocks.count(one.examples),
                *(blocks.statistic(it.score(one.task, overview.score)) for it in (alone, together)),
                blocks.difference(difference),
                blocks.count(len(difference.seeds)) if difference is not None else blocks.EMPTY,
            ]
        )
    columns = [
        "task", "method", "kept together", "kept alone", "examples", "alone", "together",
        "difference", "seeds",
    ]  # fmt: skip
    name = "examples-" + budget.replace(" ", "-")
    return Table(
        name=name, caption=f"{caption}, {overview.split} scores", columns=columns, rows=rows
    )


def _missing(found: ByExamples) -> Table:
    rows = [
        [
            blocks.text(one.task),
            blocks.text(one.method),
            blocks.count(one.size),
            blocks.count(one.examples),
            blocks.text(one.budget),
            blocks.text(one.reason),
        ]
        for one in found.pairs
        if one.reason is not None
    ]
    return Table(
        name="examples-missing",
        caption="Pairs that are missing, and why",
        columns=["task", "method", "size together", "examples", "budget", "reason"],
        rows=rows,
        folded=len(rows) > 12,
    )
