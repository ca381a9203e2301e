"""The section on which units the specialists of two tasks both keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.report.findings.contender import statistic_of
from multiprune.report.page import blocks
from multiprune.report.page.blocks import Figure, Section, Table
from multiprune.report.page.plots import heat_map

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.findings.contender import Statistic
    from multiprune.report.specialists.curve import Curve
    from multiprune.report.specialists.overview import Specialists


@dataclass(frozen=True, kw_only=True)
class TaskOverlap:
    """Intersection over union of what tasks keep, over draws, by kind of unit and pair."""

    curve: Curve
    asked: int
    tasks: tuple[str, ...]
    shared: Mapping[str, Mapping[tuple[str, str], Statistic]]


def task_overlap(found: Specialists) -> TaskOverlap | None:
    """Return the overlap at the size nearest to half, of attribution where it is known."""
    known = [one for one in found.shown if any(f.overlap for f in one.at(found.setting))]
    curve = next((one for one in known if one.method == "attribution"), next(iter(known), None))
    if curve is None:
        return None
    files = curve.at(found.setting)
    asked = found.near_half(size for file in files for size in file.overlap)
    values: dict[str, dict[tuple[str, str], list[float]]] = {}
    for file in files:
        if asked in file.overlap:
            for kind, pairs in file.overlap[asked].shared.items():
                for pair, one in pairs.items():
                    values.setdefault(kind, {}).setdefault(pair, []).append(one)
    shared = {
        kind: {pair: statistic_of(those) for pair, those in pairs.items()}
        for kind, pairs in values.items()
    }
    tasks = tuple(sorted({task for pairs in shared.values() for pair in pairs for task in pair}))
    if len(tasks) < 2:
        return None
    return TaskOverlap(curve=curve, asked=asked, tasks=tasks, shared=shared)


def overlap_section(found: Specialists) -> Section | None:
    """Show what tasks share, as a heat map for each kind of unit; None if it is not known."""
    overlap = task_overlap(found)
    if overlap is None:
        return None
    needed = found.setting if overlap.curve.needs_examples else None
    where = f"{overlap.curve.label} at {overlap.asked:,} parameters"
    return Section(
        name="shared",
        title="What tasks share",
        text=[
            "How many units the specialists of two tasks both keep over how many either keeps, "
            f"mean over draws: {where}, the size nearest to half"
            f"{f', {needed}' if needed is not None else ''}. Two that keep a share p each at "
            "random have p / (2 - p) in common: a third at half."
        ],
        figures=[_figure(overlap, kind, where) for kind in overlap.shared],
        tables=[_table(overlap)],
    )


def _figure(overlap: TaskOverlap, kind: str, where: str) -> Figure:
    tasks, shared = overlap.tasks, overlap.shared[kind]
    values = [
        [one.mean if (one := shared.get((first, second))) else None for second in tasks]
        for first in tasks
    ]
    seen = [
        f"{first} and {second} {shared[first, second].mean:.2f}"
        for first, second in _pairs(overlap, kind)
    ]
    return Figure(
        name=f"shared-{kind}",
        caption=f"Intersection over union of kept {kind}: {where}.",
        alt=f"Matrix of overlaps of {kind}: {'; '.join(seen)}.",
        draw=lambda: heat_map(tasks, tasks, values, highest=1.0),
        wide=False,
    )


def _pairs(overlap: TaskOverlap, *kinds: str) -> Sequence[tuple[str, str]]:
    """Return pairs of different tasks, each once, of which one of the kinds is known."""
    known = {pair for kind in kinds for pair in overlap.shared[kind]}
    return sorted(pair for pair in known if pair[0] < pair[1])


def _table(overlap: TaskOverlap) -> Table:
    rows = [
        [
            *map(blocks.text, pair),
            *(blocks.statistic(by_pair.get(pair)) for by_pair in overlap.shared.values()),
        ]
        for pair in _pairs(overlap, *overlap.shared)
    ]
    columns = ["task", "and", *overlap.shared]
    caption = "Intersection over union of kept units, and the range over draws"
    return Table(name="shared", caption=caption, columns=columns, rows=rows)
