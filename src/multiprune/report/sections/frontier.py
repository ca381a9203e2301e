"""The section on scores against kept parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from multiprune.report.page import blocks
from multiprune.report.page.blocks import Figure, Section, Table
from multiprune.report.page.plots import Line, frontier, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.findings.contender import Contender, Statistic
    from multiprune.report.findings.overview import Overview

_STYLES = {"multitask": "-", "best ensemble": "--", "alone": ":"}


def frontier_section(overview: Overview) -> Section:
    """Show the mean over tasks for models of all tasks, and each task for all models."""
    figures = []
    if lines := _mean_lines(overview):
        figures.append(
            _figure(overview, "frontier", f"Mean over {len(overview.tasks)} tasks", lines)
        )
    figures += [
        _figure(overview, "frontier-" + re.sub(r"\W", "_", task), task, lines)
        for task in overview.tasks
        if (lines := _task_lines(overview, task))
    ]
    return Section(
        name="frontier",
        title="Score against kept parameters",
        text=_text(overview),
        figures=figures,
        tables=[one for one in (_of_all_tasks(overview), _of_one_task(overview)) if one.rows],
    )


def ensembles_of(overview: Overview, method: str) -> list[Contender]:
    """Return the best ensembles of a method, each once, the smallest first."""
    found: dict[int, Contender] = {}
    for one in overview.comparisons:
        if one.method == method and one.ensemble is not None:
            best = one.ensemble.contenders["best"]
            found[best.parameters] = best
    return [found[size] for size in sorted(found)]


def _text(overview: Overview) -> list[str]:
    single = sum(len(model.runs) == 1 for model in overview.models)
    text = [
        f"Scores are those on {overview.split} data, the first metric of each task. A point is the "
        "mean over seeds, a band goes from the lowest to the highest seed."
    ]
    if single:
        text.append(
            f"{blocks.plural(single, 'model')} of {len(overview.models):,} "
            f"{'was' if single == 1 else 'were'} trained with one seed and "
            f"{'has' if single == 1 else 'have'} no band."
        )
    if len(overview.tasks) > 1 and not _mean_lines(overview):
        text.append(
            "There is no curve of the mean over tasks: no model of all tasks, and no ensemble."
        )
    return text


def _mean_lines(overview: Overview) -> list[Line]:
    lines = []
    if len(overview.tasks) > 1:
        for method in overview.methods:
            multitask = [model.contender for model in overview.multitask(method)]
            for kind, served in (
                ("multitask", multitask),
                ("best ensemble", ensembles_of(overview, method)),
            ):
                points = [(one.parameters, one.mean_score(overview.score)) for one in served]
                lines.append(_line(overview, method, kind, points))
    return [line for line in lines if line.points]


def _task_lines(overview: Overview, task: str) -> list[Line]:
    lines = []
    for method in overview.methods:
        for kind, models in (
            ("multitask", overview.multitask(method)),
            ("alone", overview.single(method, task)),
        ):
            served = [model.contender for model in models]
            points = [(one.parameters, one.score(task, overview.score)) for one in served]
            lines.append(_line(overview, method, kind, points))
    return [line for line in lines if line.points]


def _line(
    overview: Overview, method: str, kind: str, points: Sequence[tuple[int, Statistic | None]]
) -> Line:
    """One method: a color for each kind. Several: a color for each method, a dash for each kind."""
    alone = len(overview.methods) == 1
    return Line(
        label=kind if alone else f"{method}, {kind}",
        color=list(_STYLES).index(kind) if alone else overview.methods.index(method),
        style=_STYLES[kind],
        points=[(size, one) for size, one in points if one is not None],
    )


def _figure(overview: Overview, name: str, title: str, lines: Sequence[Line]) -> Figure:
    seen = []
    for line in lines:
        (first, low), (last, high) = line.points[0], line.points[-1]
        seen.append(
            f"{line.label} from {low.mean:.3f} at {short(first)} to {high.mean:.3f} "
            f"at {short(last)}"
        )
    wide = name == "frontier"
    label = f"{overview.split} score" + (", mean" if wide else f", {title}")
    return Figure(
        name=name,
        caption=f"{title}, on {overview.split} data.",
        alt=f"Scores of {title} over kept parameters: {'; '.join(seen)}.",
        draw=lambda: frontier(lines, overview.dense, label, wide=wide),
        wide=wide,
    )


def _of_all_tasks(overview: Overview) -> Table:
    rows = []
    for method in overview.methods:
        served = [("multitask", model.contender) for model in overview.multitask(method)]
        served += [("best ensemble", one) for one in ensembles_of(overview, method)]
        for kind, one in served:
            rows.append(
                [
                    blocks.text(method),
                    blocks.text(kind),
                    blocks.count(one.parameters),
                    blocks.number(one.parameters / overview.dense),
                    blocks.count(min(map(len, one.runs.values()))),
                    blocks.statistic(one.mean_score(overview.score)),
                    *(blocks.statistic(one.score(task, overview.score)) for task in overview.tasks),
                ]
            )
    columns = ["method", "models", "kept", "of dense", "seeds", "mean", *overview.tasks]
    caption = f"Models of all tasks: {overview.split} scores, with the lowest and highest seed"
    return Table(name="all-tasks", caption=caption, columns=columns, rows=rows)


def _of_one_task(overview: Overview) -> Table:
    rows = [
        [
            blocks.text(method),
            blocks.text(task),
            blocks.count(model.contender.parameters),
            blocks.number(model.contender.parameters / overview.dense),
            blocks.count(len(model.runs)),
            blocks.statistic(model.contender.score(task, overview.score)),
        ]
        for method in overview.methods
        for task in overview.tasks
        for model in overview.single(method, task)
    ]
    return Table(
        name="one-task",
        caption=f"Models of one task: {overview.split} scores, with the lowest and highest seed",
        columns=["method", "task", "kept", "of dense", "seeds", "score"],
        rows=rows,
        folded=len(rows) > 12,
    )
