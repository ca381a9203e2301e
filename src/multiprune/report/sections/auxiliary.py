"""The section on which tasks help which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.findings.difference import MEAN
from multiprune.report.page import blocks
from multiprune.report.page.blocks import Figure, Section, Table
from multiprune.report.page.interval_text import interval_text
from multiprune.report.page.plots import heat_map, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.findings.auxiliary import Effect
    from multiprune.report.findings.model import Model
    from multiprune.report.findings.overview import Overview

_TITLE = "Which tasks help each other"

#: As many models are drawn.
DRAWN = 6


def auxiliary_section(overview: Overview) -> Section:
    """Show what leaving out each task does to the others."""
    by_model: dict[int, list[Effect]] = {}
    for one in overview.effects:
        by_model.setdefault(id(one.whole), []).append(one)
    if not by_model:
        text = [
            "No multitask model of three tasks or more stands beside one of the same size without "
            "one of them; sweep/auxiliary_tasks.yaml trains such."
        ]
        return Section(name="auxiliary", title=_TITLE, text=text)
    figures = [
        _heat_map(overview, index, own) for index, own in enumerate([*by_model.values()][:DRAWN])
    ]
    return Section(
        name="auxiliary",
        title=_TITLE,
        text=_text(overview, len(by_model)),
        figures=figures,
        tables=[_table(overview)],
    )


def _text(overview: Overview, models: int) -> list[str]:
    found = [
        difference
        for one in overview.effects
        for name, difference in one.differences[overview.split].items()
        if name != MEAN
    ]
    drawn = f" The first {DRAWN} of {models} models are drawn." if models > DRAWN else ""
    text = [
        "Each row leaves one task out: the score of every other task with all of them together, "
        "less its score without that one, of the same method, size and seed. Positive: the task "
        "that is left out helps. Alone: less the score of a model of this size for the task alone."
        f"{drawn}",
        *_not_trained(overview),
    ]
    if not found:
        return [*text, "No two of these models have a seed in common."]
    return [
        *text,
        f"These are {len(found):,} differences on {overview.split} data: if none of them were "
        f"real, about {len(found) / 20:.1f} would still have an interval without 0, were it one of "
        "95 %.",
        *interval_text(found),
    ]


def _not_trained(overview: Overview) -> list[str]:
    """Name the models that one of their tasks was never left out of."""
    missing = []
    for model in {id(one.whole): one.whole for one in overview.effects}.values():
        left_out = {one.left_out for one in overview.effects if one.whole is model}
        if absent := [task for task in model.tasks if task not in left_out]:
            missing.append(f"{_label(overview, model)}: {', '.join(absent)}")
    return [f"No run leaves out, at {'; '.join(missing)}."] if missing else []


def _table(overview: Overview) -> Table:
    tasks = sorted({task for one in overview.effects for task in one.whole.tasks})
    rows = []
    for one in overview.effects:
        differences = one.differences[overview.split]
        seeds = {len(difference.seeds) for difference in differences.values()}
        rows.append(
            [
                blocks.text(one.whole.method),
                blocks.count(one.whole.contender.parameters),
                blocks.text(", ".join(one.whole.tasks)),
                blocks.text(one.left_out or "all others (alone)"),
                blocks.count(min(seeds)) if seeds else blocks.EMPTY,
                *(blocks.difference(differences.get(name)) for name in (*tasks, MEAN)),
            ]
        )
    return Table(
        name="auxiliary",
        caption=f"All together less without the task left out, {overview.split} scores",
        columns=["method", "kept", "together", "left out", "seeds", *tasks, MEAN],
        rows=rows,
    )


def _heat_map(overview: Overview, index: int, effects: Sequence[Effect]) -> Figure:
    model = effects[0].whole
    names = ["alone" if one.left_out is None else f"without {one.left_out}" for one in effects]
    found = [one.differences[overview.split] for one in effects]
    values = [
        [by_task[task].mean if task in by_task else None for task in model.tasks]
        for by_task in found
    ]
    seen = [
        f"{task} {by_task[task].mean:+.3f} over {name}"
        for name, by_task in zip(names, found, strict=True)
        for task in model.tasks
        if task in by_task
    ]
    return Figure(
        name=f"auxiliary-{index}",
        caption=f"Scores of each task (columns) with all together, less those in rows: "
        f"{_label(overview, model)}.",
        alt=f"Heat map of differences: {'; '.join(seen)}.",
        draw=lambda: heat_map(names, model.tasks, values, digits=3, signed=True),
        wide=len(model.tasks) > 4,
    )


def _label(overview: Overview, model: Model) -> str:
    method = f"{model.method}, " if len(overview.methods) > 1 else ""
    return f"{method}{', '.join(model.tasks)} at {short(model.contender.parameters)}"
