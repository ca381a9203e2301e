"""Where kept parameters are: in which part of the model, which layer and which matrix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from multiprune.report.layers import grid, mean_density
from multiprune.report.page.plots import bars, heat_map, short
from multiprune.report.page.section import Figure, Section, Table, distinct, table
from multiprune.runs.budget_outcome import PARTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.candidates import Model
    from multiprune.report.layers import Position
    from multiprune.report.study import Study

#: As many models are drawn where there would be one figure, or one bar, for each.
DRAWN = 6


def answer(study: Study) -> Section | None:
    """Show what is left of each part, and of each matrix where runs are pruned."""
    if study.by_examples:
        return None
    drawn = _drawn(study, study.models)
    pruned = [model for model in study.models if any(run.record.density for run in model.all_runs)]
    mapped = _drawn(study, pruned)
    densities = [mean_density([run.record.density for run in one.all_runs]) for one in mapped]
    names = distinct(_label(study, model) for model in mapped)
    dense = study.runs[0].dense
    counted = ", ".join(f"{part} {dense[part]:,}" for part in PARTS if part != "heads")
    few = len(drawn) < len(study.models)
    return Section(
        name="kept",
        title="Where kept parameters are",
        answer=_headline(densities),
        leads=False,
        text=[
            f"Every parameter counted once, of the largest seed. One dense model has: {counted}; "
            "heads differ by tasks."
            + f" {len(drawn)} of {len(study.models):,} models are drawn."
            * few
        ],
        figures=[_bars(study, drawn), *_maps(names, densities)],
        tables=[_ledger(study), _densities(names, densities)],
    )


def _headline(densities: Sequence[Mapping[Position, float]]) -> str:
    if not densities or not densities[0]:
        return ""
    by_matrix: dict[str, list[float]] = {}
    for (_, matrix), density in min(densities, key=lambda one: sum(one.values())).items():
        by_matrix.setdefault(matrix, []).append(density)
    means = {matrix: sum(values) / len(values) for matrix, values in by_matrix.items()}
    most, least = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    if most == least:
        return ""
    return (
        f"In the sparsest model drawn, most is kept of {most} ({means[most]:.2f}) and least "
        f"of {least} ({means[least]:.2f})."
    )


def _label(study: Study, model: Model) -> str:
    """Name a model in a figure."""
    kind = model.tasks[0] if len(model.tasks) == 1 else "multitask"
    method = f"{model.method}, " if len(study.methods) > 1 else ""
    return f"{method}{kind}, {short(model.parameters)}"


def _drawn(study: Study, models: Sequence[Model]) -> list[Model]:
    """Choose a few models of each method, of all tasks if there are, evenly among their sizes."""
    suite = [model for model in models if model.tasks == study.tasks]
    chosen = []
    for method in study.methods:
        own = [model for model in suite or models if model.method == method]
        step = max(1, math.ceil(len(own) * len(study.methods) / DRAWN))
        chosen += own[::step]
    return chosen[:DRAWN]


def _kept(model: Model) -> dict[str, int]:
    return {part: max(run.kept[part] for run in model.all_runs) for part in PARTS}


def _bars(study: Study, drawn: Sequence[Model]) -> Figure:
    names = [_label(study, model) for model in drawn]
    kept = [_kept(model) for model in drawn]
    sums = [f"{name}: {short(sum(one.values()))}" for name, one in zip(names, kept, strict=True)]
    parts = {part: [one[part] for one in kept] for part in PARTS}
    return Figure(
        name="kept",
        caption="Kept parameters by part.",
        alt="; ".join(sums),
        draw=lambda: bars(names, parts),
    )


def _ledger(study: Study) -> Table:
    rows = (
        {
            "method": model.method,
            "tasks": ", ".join(model.tasks),
            "asked": model.asked,
            **_kept(model),
            "in all": sum(_kept(model).values()),
        }
        for model in study.models
    )
    return table("ledger", "Ledger: kept parameters by part", rows, fold=12)


def _maps(names: Sequence[str], densities: Sequence[Mapping[Position, float]]) -> list[Figure]:
    """Draw a map for each model, all of one size and one scale."""
    highest = max((value for one in densities for value in one.values()), default=1.0)
    grids = [grid(one) for one in densities]
    room = (
        max((len(layers) for layers, *_ in grids), default=0),
        max((len(matrices) for _, matrices, _ in grids), default=0),
    )
    return [
        _map(f"density-{index}", name, one, highest, room)
        for index, (name, one) in enumerate(zip(names, densities, strict=True))
    ]


def _map(
    name: str,
    caption: str,
    densities: Mapping[Position, float],
    highest: float,
    room: tuple[int, int],
) -> Figure:
    layers, matrices, cells = grid(densities)
    (layer, matrix), least = min(densities.items(), key=lambda one: one[1])
    return Figure(
        name=name,
        caption=f"Density: {caption}.",
        alt=f"Heat map of densities; the lowest is {least:.3f} in layer {layer}, {matrix}.",
        draw=lambda: heat_map(layers, matrices, cells, digits=3, highest=highest, room=room),
        wide=False,
    )


def _densities(names: Sequence[str], densities: Sequence[Mapping[Position, float]]) -> Table:
    positions = dict.fromkeys(position for one in densities for position in one)
    rows = (
        {"layer": layer, "matrix": matrix}
        | {name: one.get((layer, matrix)) for name, one in zip(names, densities, strict=True)}
        for layer, matrix in positions
    )
    caption = "Density by layer and matrix (or its ranks or units), mean over seeds"
    return table("density", caption, rows, fold=12, digits=dict.fromkeys(names, 4))
