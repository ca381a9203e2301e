"""The section on what specialists score on data that none of their examples is from."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from multiprune.report.findings.contender import statistic_of
from multiprune.report.page import blocks
from multiprune.report.page.blocks import Figure, Section, Table
from multiprune.report.page.plots import Line
from multiprune.report.specialists.size_section import WHOLE, by_size, size_columns, style_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.specialists.curve import Curve
    from multiprune.report.specialists.files import Elsewhere
    from multiprune.report.specialists.overview import Specialists

    #: A task that a specialist is for, and the data that it answers.
    Where = tuple[str, str]
    #: One for each draw, by size asked for.
    BySize = Mapping[int, Sequence[Elsewhere]]


def unseen_section(found: Specialists) -> Section | None:
    """Show scores on data that no example is from; None if there are none."""
    wheres = unseen_wheres(found)
    if not wheres:
        return None
    return Section(
        name="unseen",
        title="Other data of the same kind",
        text=[
            "The same specialists answer other data of the same kind, of which they have seen no "
            f"example. {WHOLE.capitalize()} stands beside them there; bands and ranges are over "
            "draws."
        ],
        figures=[_figure(found, f"unseen-{i}", where) for i, where in enumerate(wheres)],
        tables=[_table(found, wheres)],
    )


def unseen_wheres(found: Specialists) -> list[Where]:
    """Return tasks and the other data that their specialists answer."""
    return sorted(
        {
            (one.task, one.data)
            for curve in found.shown
            for file in curve.at(found.setting)
            for one in file.unseen
        }
    )


def unseen_scores(found: Specialists, where: Where) -> dict[int, dict[int, list[Elsewhere]]]:
    """Return what is known of a task on other data: by the number of the curve, and size."""
    scores: dict[int, dict[int, list[Elsewhere]]] = {}
    for index, curve in enumerate(found.curves):
        by_asked: dict[int, list[Elsewhere]] = {}
        for file in curve.at(found.setting):
            for one in file.unseen:
                if (one.task, one.data) == where:
                    by_asked.setdefault(one.asked, []).append(one)
        if by_asked:
            scores[index] = {asked: by_asked[asked] for asked in sorted(by_asked)}
    return scores


def _whole(scores: Mapping[int, BySize]) -> float:
    return next(one.whole for curve in scores.values() for those in curve.values() for one in those)


def _line(curve: Curve, index: int, scores: BySize) -> Line:
    points = [
        (round(statistics.fmean(one.kept for one in those)), statistic_of([x.score for x in those]))
        for those in scores.values()
    ]
    return Line(curve.label, index, style_of(curve, index), points)


def _figure(found: Specialists, name: str, where: Where) -> Figure:
    scores, what = unseen_scores(found, where), " on ".join(where)
    lines = [_line(found.curves[index], index, one) for index, one in scores.items()]
    return by_size(found, name, what, lines, _whole(scores), what)


def _table(found: Specialists, wheres: Sequence[Where]) -> Table:
    known = {where: unseen_scores(found, where) for where in wheres}
    sizes = sorted({size for scores in known.values() for one in scores.values() for size in one})
    rows = [
        [
            *map(blocks.text, where),
            blocks.text(found.curves[index].label),
            blocks.number(_whole(scores)),
            *(
                blocks.statistic(statistic_of([one.score for one in curve[size]]))
                if size in curve
                else blocks.EMPTY
                for size in sizes
            ),
        ]
        for where, scores in known.items()
        for index, curve in scores.items()
    ]
    columns = ["cut out for", "answers", "method", WHOLE, *size_columns(found, sizes)]
    caption = "Scores on other data, by asked parameters and density"
    return Table(name="unseen", caption=caption, columns=columns, rows=rows)
