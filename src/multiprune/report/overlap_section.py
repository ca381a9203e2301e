"""The section on which tasks keep the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report import blocks
from multiprune.report.blocks import Figure, Section, Table
from multiprune.report.layers import grid
from multiprune.report.overlap import MULTITASK
from multiprune.report.plots import heat_map

if TYPE_CHECKING:
    from multiprune.report.blocks import Cell
    from multiprune.report.overlap import Overlap, Overlaps, Shared

_TITLE = "Which weights tasks share"


def overlap_section(overlaps: Overlaps | None) -> Section:
    """Show the overlap of masks at each method and size; None if it was not asked for."""
    if overlaps is None:
        text = ["Masks were not read: ask for it with --masks, which reads the model of every run."]
        return Section(name="masks", title=_TITLE, text=text)
    tables = [_pairs(overlaps), _positions(overlaps), _left_out(overlaps)]
    if not overlaps.found:
        text = ["No two runs of one method and size have models whose masks can be compared."]
    else:
        text = [
            "The Jaccard index of two masks is the number of weights that both keep over that of "
            "weights that either keeps. By chance, for independent uniform masks of the same "
            "densities p and q in each matrix, it is p q / (p + q - p q). All runs start from the "
            "same encoder, whose large weights tend to stay, so that overlap between seeds of one "
            "task (the diagonal) is what overlap between tasks is to be held against."
        ]
    figures = [one for overlap in overlaps.found for one in _figures(overlap, overlaps)]
    return Section(
        name="masks",
        title=_TITLE,
        text=text,
        figures=figures,
        tables=[one for one in tables if one.rows],
    )


def _figures(overlap: Overlap, overlaps: Overlaps) -> list[Figure]:
    index = overlaps.found.index(overlap)
    where = f"{overlap.method}, {overlap.asked:,} parameters"
    labels = overlap.labels
    values = [[_between(overlap, first, second) for second in labels] for first in labels]
    alt = [
        f"{first} and {second} {one.jaccard:.2f}" for (first, second), one in overlap.pairs.items()
    ]
    figures = [
        Figure(
            name=f"masks-{index}",
            caption=f"Jaccard index of masks: {where}. The diagonal is between seeds.",
            alt=f"Matrix of overlaps: {'; '.join(alt)}.",
            draw=lambda: heat_map(labels, labels, values),
            wide=False,
        )
    ]
    if shared := overlap.between_tasks:
        times = {position: one.times_chance for position, one in shared.items()}
        layers, matrices, cells = grid(times)
        (layer, matrix), most = max(times.items(), key=lambda one: one[1])
        figures.append(
            Figure(
                name=f"masks-{index}-layers",
                caption=f"Overlap between tasks in multiples of chance: {where}.",
                alt=f"Heat map by layer and matrix; most is {most:.1f} in layer {layer}, {matrix}.",
                draw=lambda: heat_map(layers, matrices, cells, digits=1),
                wide=False,
            )
        )
    return figures


def _between(overlap: Overlap, first: str, second: str) -> float | None:
    one = overlap.pairs.get((first, second)) or overlap.pairs.get((second, first))
    return None if one is None else one.jaccard


def _pairs(overlaps: Overlaps) -> Table:
    rows = []
    for overlap in overlaps.found:
        ordered = sorted(overlap.pairs.items(), key=lambda one: -one[1].times_chance)
        for (first, second), one in ordered:
            other = "itself, other seeds" if first == second else second
            rows.append(
                [
                    blocks.text(overlap.method),
                    blocks.count(overlap.asked),
                    blocks.text(first),
                    blocks.text(other),
                    blocks.count(one.pairs),
                    *_cells(one),
                    blocks.number(one.times_chance, 2),
                ]
            )
    columns = [
        "method",
        "asked",
        "mask of",
        "and of",
        "pairs",
        "Jaccard",
        "by chance",
        "times chance",
    ]
    caption = f"Who shares most ({MULTITASK}: one model of all tasks)"
    return Table(
        name="mask-pairs", caption=caption, columns=columns, rows=rows, folded=len(rows) > 20
    )


def _positions(overlaps: Overlaps) -> Table:
    rows = [
        [
            blocks.text(overlap.method),
            blocks.count(overlap.asked),
            blocks.text(layer),
            blocks.text(matrix),
            blocks.number(density, 4),
            *_cells(overlap.between_tasks.get((layer, matrix))),
            *_cells(overlap.between_seeds.get((layer, matrix))),
        ]
        for overlap in overlaps.found
        for (layer, matrix), density in overlap.density.items()
    ]
    columns = [
        "method", "asked", "layer", "matrix", "density", "between tasks", "by chance",
        "between seeds", "by chance",
    ]  # fmt: skip
    caption = "Jaccard index by layer and matrix"
    return Table(name="mask-layers", caption=caption, columns=columns, rows=rows, folded=True)


def _cells(shared: Shared | None) -> list[Cell]:
    if shared is None:
        return [blocks.EMPTY, blocks.EMPTY]
    return [blocks.number(shared.jaccard), blocks.number(shared.chance)]


def _left_out(overlaps: Overlaps) -> Table:
    rows = [[blocks.text(str(one.path)), blocks.text(one.reason)] for one in overlaps.left_out]
    return Table(
        name="mask-left-out",
        caption="Runs without a mask to compare",
        columns=["run", "reason"],
        rows=rows,
        folded=len(rows) > 12,
    )
