"""The section on calibration with the model's own answers instead of gold labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.report.findings.contender import statistic_of
from multiprune.report.page import blocks
from multiprune.report.page.blocks import Cell, Figure, Section, Table
from multiprune.report.page.plots import Level, Line, frontier, short
from multiprune.report.specialists.files import Setting
from multiprune.report.specialists.size_section import style_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.findings.contender import Statistic
    from multiprune.report.specialists.curve import Curve
    from multiprune.report.specialists.overview import Specialists

GOLD, PSEUDO = "gold", "pseudo"


@dataclass(frozen=True, kw_only=True)
class LabelDifference:
    """Mean scores over tasks with pseudo labels less those with gold labels, by draw."""

    curve: Curve
    examples: int
    asked: int
    gold: Statistic
    pseudo: Statistic
    difference: Statistic


def label_differences(found: Specialists) -> list[LabelDifference]:
    """Pair draws of one method, size and number of examples that differ in their labels only."""
    differences = []
    for curve in found.curves:
        for number in sorted({one.examples for one in curve.settings}):
            for size in curve.all_sizes:
                gold, pseudo = (
                    curve.by_draw(Setting(number, labels), size) for labels in (GOLD, PSEUDO)
                )
                if seeds := sorted(gold.keys() & pseudo.keys()):
                    pairs = [(gold[seed], pseudo[seed]) for seed in seeds]
                    differences.append(
                        LabelDifference(
                            curve=curve,
                            examples=number,
                            asked=size,
                            gold=statistic_of([one for one, _ in pairs]),
                            pseudo=statistic_of([one for _, one in pairs]),
                            difference=statistic_of([other - one for one, other in pairs]),
                        )
                    )
    return differences


def labels_section(found: Specialists) -> Section | None:
    """Show what the model's own answers are worth as labels; None if no draw has both."""
    differences = label_differences(found)
    if not differences:
        return None
    return Section(
        name="labels",
        title="Gold or pseudo labels",
        text=[
            "Pseudo labels are what the whole model answers itself. Differences are of mean "
            "scores over tasks, pseudo less gold, paired by draw; ranges and bands are over draws.",
            _counted(differences),
        ],
        figures=[_figure(found, differences)],
        tables=[_table(differences)],
    )


def _counted(differences: Sequence[LabelDifference]) -> str:
    several = [one.difference for one in differences if one.difference.seeds > 1]
    if not several:
        return "Each difference is of one draw: whether others would agree is not known."
    better = sum(one.low is not None and one.low > 0 for one in several)
    worse = sum(one.high is not None and one.high < 0 for one in several)
    return (
        f"Of {blocks.plural(len(several), 'difference')} with several draws, pseudo labels are "
        f"better in every draw in {better:,}, worse in every draw in {worse:,}, and neither in "
        f"{len(several) - better - worse:,}."
    )


def _figure(found: Specialists, differences: Sequence[LabelDifference]) -> Figure:
    numbers = {one.examples for one in differences}
    setting = found.setting
    number = setting.examples if setting and setting.examples in numbers else max(numbers)
    lines = []
    for index, curve in enumerate(found.curves):
        points = [
            (curve.kept(Setting(number, GOLD), one.asked), one.difference)
            for one in differences
            if one.curve is curve and one.examples == number
        ]
        if points:
            lines.append(Line(curve.label, index, style_of(curve, index), points))
    seen = [
        f"{line.label} {one.mean:+.3f} at {short(kept)}"
        for line in lines
        for kept, one in line.points
    ]
    label, level = "pseudo less gold", Level("no difference", 0.0)
    return Figure(
        name="labels",
        caption=f"Pseudo less gold labels, {number:,} examples a task, by kept parameters.",
        alt=f"Differences over kept parameters: {'; '.join(seen)}.",
        draw=lambda: frontier(lines, found.dense, label, wide=True, levels=[level]),
    )


def _table(differences: Sequence[LabelDifference]) -> Table:
    rows = [
        [
            blocks.text(one.curve.label),
            blocks.count(one.asked),
            blocks.count(one.examples),
            blocks.statistic(one.gold),
            blocks.statistic(one.pseudo),
            _signed(one.difference),
            blocks.count(one.difference.seeds),
        ]
        for one in differences
    ]
    columns = ["method", "asked", "examples", "gold", "pseudo", "pseudo less gold", "draws"]
    caption = "Gold and pseudo labels, the same draws of examples"
    return Table(name="labels", caption=caption, columns=columns, rows=rows, folded=len(rows) > 20)


def _signed(value: Statistic) -> Cell:
    ends = "" if value.seeds == 1 else f" ({value.low:+.3f} to {value.high:+.3f})"
    return Cell(f"{value.mean:+.3f}{ends}", value.mean)
