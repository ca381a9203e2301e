"""The section on how many calibration examples specialists need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.page import blocks
from multiprune.report.page.blocks import Figure, Section, Table
from multiprune.report.page.plots import Level, Line, ends, over_examples, short
from multiprune.report.specialists.curve import overlapping
from multiprune.report.specialists.files import Setting
from multiprune.report.specialists.size_section import WHOLE, style_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.findings.contender import Statistic
    from multiprune.report.page.blocks import Cell
    from multiprune.report.specialists.curve import Curve
    from multiprune.report.specialists.overview import Specialists


def number_section(found: Specialists) -> Section | None:
    """Show scores by number of calibration examples; None if no method has several."""
    if found.setting is None:
        return None
    labels = found.setting.labels
    curves = [curve for curve in found.curves if len(_numbers(curve, labels)) > 1]
    if not curves:
        return None
    numbers = sorted({number for curve in curves for number in _numbers(curve, labels)})
    half = found.common_half(curves)
    return Section(
        name="number",
        title="How many examples are enough",
        text=[
            f"Mean scores over tasks by the number of calibration examples of each, with {labels} "
            f"labels; all methods at {short(half)} parameters, the size nearest to half, and all "
            f"sizes of {curves[0].label}. Methods that need no examples are dotted.",
            "The last column is the number from which on the range over draws overlaps that of the "
            "most examples; it is empty where one of them has a single draw.",
        ],
        figures=[
            _of_methods(found, curves, labels, half, numbers),
            _of_sizes(found, curves[0], labels),
        ],
        tables=[_table(curves, labels, numbers)],
    )


def _numbers(curve: Curve, labels: str) -> list[int]:
    return [one.examples for one in curve.settings if one.labels == labels]


def _scores(curve: Curve, labels: str, size: int, numbers: Sequence[int]) -> dict[int, Statistic]:
    scores = {number: curve.score(Setting(number, labels), size) for number in numbers}
    return {number: one for number, one in scores.items() if one is not None}


def _of_methods(
    found: Specialists, curves: Sequence[Curve], labels: str, half: int, numbers: Sequence[int]
) -> Figure:
    lines = []
    for index, curve in enumerate(found.curves):
        if curve in curves or not curve.needs_examples:
            points = list(_scores(curve, labels, half, numbers).items())
            lines.append(Line(curve.label, index, style_of(curve, index), points))
    return _figure(found, "number-methods", f"All methods at {half:,} parameters", lines)


def _of_sizes(found: Specialists, curve: Curve, labels: str) -> Figure:
    lines = []
    for index, size in enumerate(curve.all_sizes):
        points = list(_scores(curve, labels, size, _numbers(curve, labels)).items())
        label = f"{short(size)} ({size / found.dense:.3g})"
        lines.append(Line(label, index, style_of(curve, index), points))
    return _figure(found, "number-sizes", f"{curve.label} at all sizes", lines)


def _figure(found: Specialists, name: str, caption: str, lines: Sequence[Line]) -> Figure:
    lines = [line for line in lines if line.points]
    level = Level(WHOLE, found.whole())
    xlabel = "calibration examples of each task"
    return Figure(
        name=name,
        caption=f"{caption}, by number of calibration examples; dashed: {WHOLE}.",
        alt=f"Scores over calibration examples: {ends(lines, 'with', '{:,}'.format)}.",
        draw=lambda: over_examples(lines, "mean score", xlabel=xlabel, levels=[level]),
    )


def _table(curves: Sequence[Curve], labels: str, numbers: Sequence[int]) -> Table:
    rows = []
    for curve in curves:
        for size in curve.all_sizes:
            scores = _scores(curve, labels, size, numbers)
            rows.append(
                [
                    blocks.text(curve.label),
                    blocks.count(size),
                    *(blocks.statistic(scores.get(number)) for number in numbers),
                    _enough(scores),
                ]
            )
    columns = ["method", "asked", *(f"{number:,}" for number in numbers), "enough"]
    caption = "Mean scores and ranges over draws by number of calibration examples"
    return Table(name="number", caption=caption, columns=columns, rows=rows, folded=len(rows) > 20)


def _enough(scores: Mapping[int, Statistic]) -> Cell:
    """Return the number from which on ranges overlap that of the largest number."""
    if len(scores) < 2 or any(one.seeds < 2 for one in scores.values()):
        return blocks.EMPTY
    most = max(scores)
    enough = most
    for number in sorted(scores, reverse=True):
        if not overlapping(scores[number], scores[most]):
            break
        enough = number
    return blocks.count(enough)
