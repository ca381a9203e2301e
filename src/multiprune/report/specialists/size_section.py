"""The section on scores of specialists against kept parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from multiprune.report.page import blocks
from multiprune.report.page.blocks import Cell, Figure, Section, Table
from multiprune.report.page.drawing import SERIES
from multiprune.report.page.plots import Level, Line, ends, frontier, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.specialists.curve import Curve
    from multiprune.report.specialists.overview import Specialists

WHOLE = "the whole model"
RANGE = (
    "A point is the mean over draws of the calibration examples, a band goes from the lowest to "
    "the highest draw. All draws are of one model and of the same validation data: a band says "
    "how much depends on which examples were drawn (for random, on the seed), and nothing else."
)


def style_of(curve: Curve, index: int) -> str:
    """Return how a curve is drawn: dotted without examples, else by its round of colours."""
    if not curve.needs_examples:
        return ":"
    return "-" if index < len(SERIES) else "-."


def size_section(found: Specialists) -> Section:
    """Show all methods at one number of examples, mean over tasks and each task."""
    figures = [_figure(found, "specialists", None)]
    tables = [_table(found, "specialists", None)]
    if len(found.tasks) > 1:
        figures += [_figure(found, name, task) for task, name in _named(found).items()]
        tables += [_table(found, name, task) for task, name in _named(found).items()]
    return Section(
        name="specialists",
        title="Score against kept parameters",
        text=_text(found),
        figures=figures,
        tables=tables,
    )


def _named(found: Specialists) -> dict[str, str]:
    return {
        task: f"specialists-{index}-" + re.sub(r"\W", "_", task)
        for index, task in enumerate(found.tasks)
    }


def _text(found: Specialists) -> list[str]:
    text = [
        "Smaller models of one task each, cut out of one model of all tasks without training. "
        f"Scores are the first metric of each task on validation data. {RANGE}"
    ]
    if found.setting is not None:
        settings = {one for curve in found.curves for one in curve.settings}
        why = " (of what was measured, that of most methods)" if len(settings) > 1 else ""
        text.append(f"Methods that need examples had {found.setting}{why}.")
    free = [curve.label for curve in found.curves if not curve.needs_examples]
    if free and found.setting is not None:
        text.append(f"{' and '.join(free)} {'needs' if len(free) == 1 else 'need'} none (dotted).")
    if hidden := [curve.label for curve in found.curves if curve not in found.shown]:
        text.append(f"Not measured so: {', '.join(hidden)}.")
    shares = [
        curve.kept(found.setting, size) / size
        for curve in found.shown
        for size in curve.sizes(found.setting)
    ]
    text.append(
        f"Specialists kept from {min(shares):.1%} to {max(shares):.1%} of what was asked, in the "
        "mean over tasks and draws; figures are by what was kept, tables by what was asked."
    )
    return text


def _figure(found: Specialists, name: str, task: str | None) -> Figure:
    lines = []
    for curve in found.shown:
        points = [
            (curve.kept(found.setting, size, task), score)
            for size in curve.sizes(found.setting)
            if (score := curve.score(found.setting, size, task)) is not None
        ]
        index = found.curves.index(curve)
        lines.append(Line(curve.label, index, style_of(curve, index), points))
    what = _mean(found) if task is None else task
    return by_size(found, name, f"{what}, by kept parameters", lines, found.whole(task), what)


def _mean(found: Specialists) -> str:
    return f"Mean over {len(found.tasks)} tasks" if len(found.tasks) > 1 else found.tasks[0]


def by_size(
    found: Specialists, name: str, caption: str, lines: Sequence[Line], whole: float, ylabel: str
) -> Figure:
    """Draw scores over kept parameters, beside that of the whole model."""
    wide = name == "specialists"
    return Figure(
        name=name,
        caption=f"{caption}; dashed: {WHOLE}.",
        alt=f"{caption}: {ends(lines, 'at', short)}; {WHOLE} {whole:.3f}.",
        draw=lambda: frontier(lines, found.dense, ylabel, wide=wide, levels=[Level(WHOLE, whole)]),
        wide=wide,
    )


def _table(found: Specialists, name: str, task: str | None) -> Table:
    sizes = sorted({size for curve in found.shown for size in curve.sizes(found.setting)})
    rows = [
        [
            blocks.text(curve.label),
            *(blocks.statistic(curve.score(found.setting, size, task)) for size in sizes),
            _draws(curve, found, sizes),
        ]
        for curve in found.shown
    ]
    return Table(
        name=name,
        caption=f"{task or _mean(found)}: the mean and the range over draws, by "
        f"asked parameters and density; {WHOLE} has {found.whole(task):.3f}",
        columns=["method", *size_columns(found, sizes), "draws"],
        rows=rows,
        folded=task is not None and len(found.tasks) > 3,
    )


def size_columns(found: Specialists, sizes: Sequence[int]) -> list[str]:
    """Name sizes by their parameters and density, each name its own."""
    return [f"{short(size)} ({size / found.dense:.3g})" for size in sizes]


def _draws(curve: Curve, found: Specialists, sizes: Sequence[int]) -> Cell:
    if curve.is_fixed:
        return blocks.EMPTY
    return blocks.count(max(len(curve.by_draw(found.setting, size)) for size in sizes))
