"""What a report draws."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from multiprune.report.page.drawing import MARKERS, ON_DARK, ON_LIGHT, PALETTE, SERIES, blank

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from multiprune.report.compare import Difference, Spread

#: Labels of as many letters have room beside each other in a legend.
HALF = 40


@dataclass(frozen=True)
class Line:
    """A curve of scores over sizes or examples; ``color`` counts through the palette."""

    label: str
    color: int
    style: str
    points: Sequence[tuple[int, Spread]] = field(default_factory=list)


def ends(lines: Sequence[Line], at: str, shown: Callable[[int], str]) -> str:
    """Say where curves begin and end: sizes or numbers of examples stand behind the word ``at``."""

    def end(point: tuple[int, Spread]) -> str:
        return f"{point[1].mean:.3f} {at} {shown(point[0])}"

    return "; ".join(
        f"{line.label} from {end(line.points[0])} to {end(line.points[-1])}" for line in lines
    )


@dataclass(frozen=True)
class Level:
    """A dashed line across a figure that curves are held against; grey without a ``color``."""

    label: str
    score: float
    color: int | None = None


def frontier(
    lines: Sequence[Line],
    dense: int,
    ylabel: str,
    *,
    levels: Sequence[Level] = (),
    wide: bool = True,
) -> Figure:
    """Draw scores over kept parameters; bands are from the lowest to the highest seed."""
    return _curves(
        lines,
        ylabel,
        "kept parameters, and of one dense model",
        levels,
        lambda size: f"{short(size)}\n{size / dense:.2g}",
        factor=8,
        wide=wide,
    )


def over_examples(
    lines: Sequence[Line],
    ylabel: str,
    *,
    xlabel: str = "training examples",
    levels: Sequence[Level] = (),
) -> Figure:
    """Draw scores over numbers of examples, on a logarithmic scale."""
    return _curves(lines, ylabel, xlabel, levels, "{:,}".format, factor=1)


def _curves(
    lines: Sequence[Line],
    ylabel: str,
    xlabel: str,
    levels: Sequence[Level],
    name: Callable[[int], str],
    *,
    factor: float,
    wide: bool = True,
) -> Figure:
    """Draw lines above a legend, which takes nothing of their room."""
    labels = [*(line.label for line in lines), *(level.label for level in levels)]
    width, height = (5.6, 3.2) if wide else (3.6, 2.6)
    columns = 2 if max(map(len, labels), default=0) <= HALF * width / 5.6 else 1
    figure, axes = blank(width, height + 0.17 * math.ceil(len(labels) / columns))
    _draw(axes, lines, ylabel, levels)
    axes.set_xlabel(xlabel)
    places = sorted({place for line in lines for place, _ in line.points if place > 0})
    _number_axis(axes, places, name, factor=factor)
    figure.legend(loc="outside lower center", ncols=columns)
    return figure


def _draw(axes: Axes, lines: Sequence[Line], ylabel: str, levels: Sequence[Level]) -> None:
    for level in levels:
        color = PALETTE["faint"] if level.color is None else SERIES[level.color % len(SERIES)]
        axes.axhline(level.score, color=color, ls="--", lw=1, label=level.label)
    for line in lines:
        color = SERIES[line.color % len(SERIES)]
        axes.plot(
            [place for place, _ in line.points],
            [one.mean for _, one in line.points],
            line.style,
            color=color,
            marker=MARKERS[line.color % len(MARKERS)],
            markersize=4,
            label=line.label,
        )
        banded = [(place, one) for place, one in line.points if one.low is not None]
        low, high = ([getattr(one, end) for _, one in banded] for end in ("low", "high"))
        if banded:  # an empty band would take the margins away
            band = [place for place, _ in banded]
            axes.fill_between(band, low, high, color=color, alpha=0.18, lw=0)
        if len(banded) == 1:
            # A band of one point has no width.
            axes.vlines([banded[0][0]], low, high, color=color, alpha=0.5)
    axes.margins(y=0.08)
    axes.grid(axis="y")
    axes.set_ylabel(ylabel)


def forest(names: Sequence[str], differences: Sequence[Difference], xlabel: str) -> Figure:
    """Draw differences and their intervals below each other, beside the line of no difference."""
    figure, axes = blank(5.6, 0.9 + 0.3 * len(names))
    heights = range(len(names), 0, -1)
    axes.axvline(0, color=PALETTE["faint"], linewidth=0.8)
    for height, difference in zip(heights, differences, strict=True):
        if difference.low is not None and difference.high is not None:
            ends = [difference.low, difference.high]
            axes.plot(ends, [height, height], color=SERIES[0], linewidth=1.5)
        axes.plot([difference.mean], [height], "o", color=SERIES[0], markersize=5)
        axes.annotate(
            f"{difference.mean:+.3f}", (difference.mean, height), (0, 4),
            textcoords="offset points", ha="center", fontsize=7,
        )  # fmt: skip
    axes.set_yticks(list(heights), names)
    axes.set_ylim(0.4, len(names) + 0.7)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x")
    return figure


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    digits: int = 2,
    highest: float | None = None,
    signed: bool = False,
    room: tuple[int, int] | None = None,
) -> Figure:
    """Draw numbers from 0 to ``highest`` as colours with the numbers on them; None stays empty.

    ``signed`` numbers go as far below 0 as above, in two hues. ``room`` is for so many rows and
    columns, so that maps beside each other are of one size.
    """
    high, wide = room or (len(rows), len(columns))
    figure, axes = blank(1.6 + 0.5 * wide, 1.0 + 0.24 * high)
    known = [abs(one) for row in values for one in row if one is not None]
    top = (max(known, default=1.0) if highest is None else highest) or 1
    shaded = [[math.nan if one is None else one for one in row] for row in values]
    colors, low = ("PuOr", -top) if signed else ("cividis", 0)
    axes.pcolormesh(shaded, cmap=colors, vmin=low, vmax=top, edgecolor="face", lw=0.2)
    for y, row in enumerate(values):
        for x, one in enumerate(row):
            if one is not None:
                is_light = abs(one) < 0.6 * top if signed else one > 0.55 * top
                color = ON_LIGHT if is_light else ON_DARK
                text = f"{one:{'+' * signed}.{digits}f}"
                axes.text(x + 0.5, y + 0.5, text, color=color, ha="center", va="center", fontsize=7)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], rows)
    axes.set_xticks([x + 0.5 for x in range(len(columns))], columns, rotation=30, ha="right")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def bars(names: Sequence[str], parts: Mapping[str, Sequence[int]]) -> Figure:
    """Draw how each bar is made of parts, from left to right."""
    figure, axes = blank(5.6, 0.9 + 0.27 * len(names))
    heights = range(len(names), 0, -1)
    left = [0] * len(names)
    for index, (part, sizes) in enumerate(parts.items()):
        axes.barh(
            list(heights), sizes, left=left, color=SERIES[index], label=part, height=0.7,
            edgecolor=PALETTE["ground"], linewidth=0.8,
        )  # fmt: skip
        left = [start + size for start, size in zip(left, sizes, strict=True)]
    for height, total in zip(heights, left, strict=True):
        axes.annotate(
            short(total), (total, height), (3, 0), textcoords="offset points", va="center",
            fontsize=7,
        )  # fmt: skip
    axes.set_yticks(list(heights), names)
    axes.set_xlim(0, 1.12 * max(left))
    axes.xaxis.set_major_formatter(lambda value, _: short(int(value)))
    axes.set_xlabel("kept parameters")
    figure.legend(loc="outside upper center", ncols=len(parts))
    return figure


def ranges(names: Sequence[str], values: Sequence[Sequence[float]], xlabel: str) -> Figure:
    """Draw from the lowest to the highest value of each name, and the median."""
    figure, axes = blank(5.6, 0.9 + 0.27 * len(names))
    heights = range(len(names), 0, -1)
    for height, one in zip(heights, values, strict=True):
        axes.plot([min(one), max(one)], [height, height], color=SERIES[0], linewidth=3)
        axes.plot([statistics.median(one)], [height], "o", color=SERIES[1], markersize=5)
    axes.set_yticks(list(heights), names)
    axes.set_ylim(0.4, len(names) + 0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x")
    return figure


def short(count: int) -> str:
    """Write a number of parameters in three digits."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{letter}"
    return str(count)


def _number_axis(
    axes: Axes, distinct: Sequence[int], name: Callable[[int], str], *, factor: float
) -> None:
    """Mark rising numbers, and name those that are as far apart as names need, on one scale.

    It is logarithmic if the largest is more than ``factor`` times the smallest.
    """
    if not distinct:
        return
    wide = distinct[-1] > factor * distinct[0]
    if wide:
        axes.set_xscale("log")
    place = [math.log(number) if wide else float(number) for number in distinct]
    # Numbers that differ by a few percent have the same name.
    apart = max((place[-1] - place[0]) / 6, 0.1 * (1 if wide else distinct[-1]))
    if distinct[-1] < 1.2 * distinct[0]:
        axes.set_xlim(0.8 * distinct[0], 1.2 * distinct[-1])
    marked = [0]
    for index in range(1, len(distinct)):
        if place[index] - place[marked[-1]] >= apart:
            marked.append(index)
    axes.set_xticks([distinct[i] for i in marked], [name(distinct[i]) for i in marked])
    axes.set_xticks([distinct[i] for i in range(len(distinct)) if i not in marked], minor=True)
    axes.xaxis.set_minor_formatter(lambda *_: "")
