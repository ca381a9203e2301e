"""The sections on where kept parameters are: parts of the model, layers and matrices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from multiprune.budget.ledger import PARTS
from multiprune.report.findings.layers import grid, mean_density
from multiprune.report.page import blocks
from multiprune.report.page.blocks import Figure, Section, Table
from multiprune.report.page.plots import bars, heat_map, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.findings.layers import Position
    from multiprune.report.findings.model import Model
    from multiprune.report.findings.overview import Overview

#: As many models are drawn where there would be one figure, or one bar, for each.
DRAWN = 6


def _label(model: Model, overview: Overview) -> str:
    """Name a model in a figure."""
    kind = model.tasks[0] if len(model.tasks) == 1 else "multitask"
    method = f"{model.method}, " if len(overview.methods) > 1 else ""
    return f"{method}{kind}, {short(model.contender.parameters)}"


def _drawn(models: Sequence[Model], overview: Overview) -> list[Model]:
    """Choose a few models of each method, of all tasks if there are, evenly among their sizes."""
    suite = [model for model in models if model.tasks == overview.tasks]
    chosen = []
    for method in overview.methods:
        own = [model for model in suite or models if model.method == method]
        step = max(1, math.ceil(len(own) * len(overview.methods) / DRAWN))
        chosen += own[::step]
    return chosen[:DRAWN]


def ledger_section(overview: Overview) -> Section:
    """Show in which part of each model kept parameters are."""
    dense = overview.rows[0].ledger.dense
    drawn = _drawn(overview.models, overview)
    names = [_label(model, overview) for model in drawn]
    kept = [_kept(model) for model in drawn]
    sums = [f"{name}: {short(sum(one.values()))}" for name, one in zip(names, kept, strict=True)]
    parts = {part: [one[part] for one in kept] for part in PARTS}
    figure = Figure(
        name="ledger",
        caption=f"Where kept parameters are{_of_all(drawn, overview.models)}.",
        alt="; ".join(sums),
        draw=lambda: bars(names, parts),
    )
    counted = ", ".join(f"{part} {dense[part]:,}" for part in PARTS if part != "heads")
    text = [
        "Every parameter counted once, in the largest seed of each model. One dense model has: "
        f"{counted}; heads differ by tasks. What is left of ranks or units is in these numbers."
    ]
    table = _ledger_table(overview)
    return Section(name="ledger", title="Ledger", text=text, figures=[figure], tables=[table])


def _ledger_table(overview: Overview) -> Table:
    rows = []
    for model in overview.models:
        kept = _kept(model)
        rows.append(
            [
                blocks.text(model.method),
                blocks.text(", ".join(model.tasks)),
                blocks.count(model.asked),
                *(blocks.count(kept[part]) for part in PARTS),
                blocks.count(sum(kept.values())),
            ]
        )
    return Table(
        name="ledger",
        caption="Kept parameters by part",
        columns=["method", "tasks", "asked", *PARTS, "in all"],
        rows=rows,
        folded=len(rows) > 12,
    )


def _kept(model: Model) -> dict[str, int]:
    return {part: max(run.ledger.kept[part] for run in model.runs) for part in PARTS}


def _of_all(drawn: Sequence[Model], models: Sequence[Model]) -> str:
    return f" ({len(drawn)} of {len(models):,} models)" if len(drawn) < len(models) else ""


def density_section(overview: Overview) -> Section:
    """Show what is kept of each matrix."""
    pruned = [model for model in overview.models if any(run.record.density for run in model.runs)]
    title = "Density by layer and matrix"
    if not pruned:
        text = ["No run holds densities by layer: nothing was pruned."]
        return Section(name="density", title=title, text=text)
    drawn = _drawn(pruned, overview)
    densities = [mean_density([run.record.density for run in model.runs]) for model in drawn]
    names = [_label(model, overview) for model in drawn]
    text = [
        "What is kept of each matrix, or of its ranks or units, mean over seeds"
        f"{_of_all(drawn, pruned)}. Colours go from 0 to the largest number of each map."
    ]
    figures = [
        _heat_map(f"density-{index}", name, one)
        for index, (name, one) in enumerate(zip(names, densities, strict=True))
    ]
    table = _density_table(names, densities)
    return Section(name="density", title=title, text=text, figures=figures, tables=[table])


def _heat_map(name: str, caption: str, densities: Mapping[Position, float]) -> Figure:
    layers, matrices, cells = grid(densities)
    (layer, matrix), least = min(densities.items(), key=lambda one: one[1])
    return Figure(
        name=name,
        caption=f"{caption}.",
        alt=f"Heat map of densities; the lowest is {least:.3f} in layer {layer}, {matrix}.",
        draw=lambda: heat_map(layers, matrices, cells, digits=3),
        wide=False,
    )


def _density_table(names: Sequence[str], densities: Sequence[Mapping[Position, float]]) -> Table:
    rows = [
        [
            blocks.text(layer),
            blocks.text(matrix),
            *(blocks.number(one.get((layer, matrix)), 4) for one in densities),
        ]
        for layer, matrix in dict.fromkeys(position for one in densities for position in one)
    ]
    return Table(
        name="density",
        caption="Kept share by layer and matrix, mean over seeds",
        columns=["layer", "matrix", *names],
        rows=rows,
        folded=len(rows) > 12,
    )
