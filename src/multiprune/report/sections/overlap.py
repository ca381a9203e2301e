"""The section on which tasks keep the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.findings.layers import grid
from multiprune.report.findings.overlap import MULTITASK
from multiprune.report.page import blocks
from multiprune.report.page.blocks import Figure, Section, Table
from multiprune.report.page.plots import heat_map

if TYPE_CHECKING:
    from multiprune.report.findings.overlap import Overlap, Overlaps, Pair, Shared
    from multiprune.report.page.blocks import Cell

_TITLE = "What tasks share"


def overlap_section(overlaps: Overlaps | None) -> Section:
    """Show the overlap of masks at each method and size; None if it was not asked for."""
    if overlaps is None:
        text = ["Masks were not read: ask for it with --masks."]
        return Section(name="masks", title=_TITLE, text=text)
    without = blocks.left_out_table(
        "mask-left-out", "Runs without a mask to compare", overlaps.left_out
    )
    tables = [_pairs(overlaps), _positions(overlaps), without]
    if not overlaps.found:
        text = ["No two runs of one method and size have masks that can be compared."]
    else:
        text = [
            "The Jaccard index of two masks is the number of weights (or ranks, or units) that "
            "both keep over that of those that either keeps. By chance, for independent uniform "
            "masks of the same densities p and q in each matrix, it is p q / (p + q - p q).",
            "Runs of one seed start from the same weights and see examples in the same order; runs "
            "of one pretrained encoder share most of what they start from. So overlap between "
            "tasks of different seeds (below the diagonal) is to be held against overlap between "
            "seeds of one task (on it); above the diagonal are tasks of the same seed.",
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
    values = [
        [_jaccard(overlap.shared(one, other, same_seed=y < x)) for x, other in enumerate(labels)]
        for y, one in enumerate(labels)
    ]
    alt = [
        f"{one.first} and {one.second}, {_seeds(one)}: {one.shared.jaccard:.2f}"
        for one in overlap.pairs
    ]
    figures = [
        Figure(
            name=f"masks-{index}",
            caption=f"Jaccard index of masks: {where}. Above the diagonal runs have the same seed, "
            "on and below it different ones.",
            alt=f"Matrix of overlaps: {'; '.join(alt)}.",
            draw=lambda: heat_map(labels, labels, values),
            wide=False,
        )
    ]
    if shared := overlap.between_tasks or overlap.between_both:
        times = {position: one.times_chance for position, one in shared.items()}
        layers, matrices, cells = grid(times)
        (layer, matrix), most = max(times.items(), key=lambda one: one[1])
        figures.append(
            Figure(
                name=f"masks-{index}-layers",
                caption=f"Overlap between tasks in multiples of chance: {where}, "
                f"{'the same seed' if overlap.between_tasks else 'different seeds'}.",
                alt=f"Heat map by layer and matrix; most is {most:.1f} in layer {layer}, {matrix}.",
                draw=lambda: heat_map(layers, matrices, cells, digits=1),
                wide=False,
            )
        )
    return figures


def _jaccard(shared: Shared | None) -> float | None:
    return None if shared is None else shared.jaccard


def _seeds(pair: Pair) -> str:
    return "same seed" if pair.same_seed else "other seed"


def _pairs(overlaps: Overlaps) -> Table:
    rows = []
    for overlap in overlaps.found:
        ordered = sorted(overlap.pairs, key=lambda one: -one.shared.times_chance)
        rows += [
            [
                blocks.text(overlap.method),
                blocks.count(overlap.asked),
                blocks.text(one.first),
                blocks.text(one.second),
                blocks.text(_seeds(one)),
                blocks.count(one.shared.pairs),
                *_cells(one.shared),
                blocks.number(one.shared.times_chance, 2),
            ]
            for one in ordered
        ]
    columns = [
        "method", "asked", "mask of", "and of", "seeds", "pairs", "Jaccard", "by chance",
        "times chance",
    ]  # fmt: skip
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
            *_cells(overlap.between_both.get((layer, matrix))),
            *_cells(overlap.between_seeds.get((layer, matrix))),
        ]
        for overlap in overlaps.found
        for (layer, matrix), density in overlap.density.items()
    ]
    columns = [
        "method", "asked", "layer", "matrix", "density", "between tasks", "by chance",
        "between tasks and seeds", "by chance", "between seeds", "by chance",
    ]  # fmt: skip
    caption = "Jaccard index by layer and matrix"
    return Table(name="mask-layers", caption=caption, columns=columns, rows=rows, folded=True)


def _cells(shared: Shared | None) -> list[Cell]:
    if shared is None:
        return [blocks.EMPTY, blocks.EMPTY]
    return [blocks.number(shared.jaccard), blocks.number(shared.chance)]
