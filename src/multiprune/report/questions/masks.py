"""What tasks share: masks of one method and size, between tasks and seeds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from multiprune.report.layers import Position, grid, position_of
from multiprune.report.page.plots import heat_map
from multiprune.report.page.section import Figure, Section, Table, skipped_table, table
from multiprune.report.shared_masks import Counts, count_by_path, pooled
from multiprune.runs.frame import Skipped
from multiprune.runs.masks import Masks, read_masks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from multiprune.report.candidates import Model
    from multiprune.report.study import Study
    from multiprune.runs.frame import FinishedRun

#: Names a model of several tasks in place of a task.
MULTITASK = "multitask"


@dataclass(frozen=True)
class Shared:
    """Means over pairs of masks: the Jaccard index and what it is by chance."""

    jaccard: float
    chance: float
    pairs: int

    @property
    def times_chance(self) -> float:
        """The Jaccard index in multiples of what it is by chance."""
        return self.jaccard / self.chance


@dataclass(frozen=True)
class MaskPair:
    """Two labels, whether pairs are of runs of the same seed, and what these share."""

    first: str
    second: str
    same_seed: bool
    shared: Shared

    @property
    def seeds(self) -> str:
        """Which runs are paired."""
        return "same seed" if self.same_seed else "other seed"


@dataclass(frozen=True, kw_only=True)
class MaskOverlap:
    """The overlap of the masks of one method at one size.

    Attributes:
        labels: tasks, by name, and ``MULTITASK`` last.
        pairs: of labels in their order; those of a label and itself are of different seeds.
        between_tasks: by position, over pairs of different tasks and the same seed.
        between_both: by position, over pairs of different tasks and different seeds.
        between_seeds: by position, over pairs of different seeds of the same model.
        density: by position, over all masks.
    """

    method: str
    asked: int
    labels: tuple[str, ...]
    pairs: Sequence[MaskPair]
    between_tasks: Mapping[Position, Shared]
    between_both: Mapping[Position, Shared]
    between_seeds: Mapping[Position, Shared]
    density: Mapping[Position, float]

    def shared(self, first: str, second: str, *, same_seed: bool) -> Shared | None:
        """Return what two labels share, in either order; None if there are no such pairs."""
        for pair in self.pairs:
            if {pair.first, pair.second} == {first, second} and pair.same_seed == same_seed:
                return pair.shared
        return None


def answer(study: Study) -> Section | None:
    """Show the overlap of masks at each method and size, if masks are to be read."""
    if not study.reads_masks:
        return None
    found, skipped = overlaps(study)
    without = skipped_table("masks-skipped", "Runs without a mask to compare", skipped)
    return Section(
        name="masks",
        title="What tasks share",
        answer=_headline(found),
        text=[
            "The Jaccard index of two masks is how much both keep over how much either keeps; by "
            "chance, of independent masks of densities p and q, it is p q / (p + q - p q).",
            "Runs of one seed begin with the same weights and order of examples: compare tasks of "
            "other seeds (below the diagonal) with seeds of one task (on it).",
        ]
        if found
        else ["No two runs of one method and size have masks that can be compared."],
        figures=_figures(found),
        tables=[_pairs(found), _positions(found), without],
    )


def overlaps(study: Study) -> tuple[list[MaskOverlap], list[Skipped]]:
    """Read the masks of all models and compare those of one method and size."""
    by_size: dict[tuple[str, int], list[Model]] = {}
    for model in study.models:
        if len(model.tasks) == 1 or model.tasks == study.tasks:
            by_size.setdefault((model.method, model.asked), []).append(model)
    found: list[MaskOverlap] = []
    skipped: list[Skipped] = []
    for (method, asked), models in sorted(by_size.items()):
        masks, unread = _read(run for model in models for run in model.all_runs)
        skipped += unread
        if len(masks) < 2:
            reason = f"no other mask of {method} at {asked:,} parameters"
            skipped += [Skipped(run.path, reason) for run, _ in masks]
            continue
        try:
            found.append(_overlap(method, asked, masks))
        except ValueError as error:
            skipped += [Skipped(run.path, str(error)) for run, _ in masks]
    return found, skipped


def _read(
    runs: Iterable[FinishedRun],
) -> tuple[list[tuple[FinishedRun, Masks]], list[Skipped]]:
    masks, skipped = [], []
    for run in runs:
        try:
            masks.append((run, read_masks(run.path, run.record.density)))
        except (ValueError, OSError) as error:
            skipped.append(Skipped(run.path, str(error)))
    return masks, skipped


def _overlap(method: str, asked: int, masks: Sequence[tuple[FinishedRun, Masks]]) -> MaskOverlap:
    labels = [run.tasks[0] if len(run.tasks) == 1 else MULTITASK for run, _ in masks]
    names = sorted(set(labels), key=lambda label: (label == MULTITASK, label))
    by_path = count_by_path([one for _, one in masks])
    by_position: dict[Position, Counts] = {}
    for path, counts in by_path.items():
        position = position_of(path)
        before = by_position.get(position)
        by_position[position] = counts if before is None else before + counts
    whole = pooled(by_path)
    chosen = _Pairs(labels, [run.seed for run, _ in masks])
    pairs = [
        MaskPair(first, second, same_seed, shared)
        for first, second in itertools.combinations_with_replacement(names, 2)
        for same_seed in (True, False)
        if (shared := _shared(whole, chosen.of({first, second}, same_seed)))
    ]
    return MaskOverlap(
        method=method,
        asked=asked,
        labels=tuple(names),
        pairs=pairs,
        between_tasks=_by_position(by_position, chosen.of_tasks(same_seed=True)),
        between_both=_by_position(by_position, chosen.of_tasks(same_seed=False)),
        between_seeds=_by_position(by_position, chosen.of_one_label()),
        density={position: float(one.density.mean()) for position, one in by_position.items()},
    )


@dataclass(frozen=True)
class _Pairs:
    """Chooses pairs of masks, by their numbers."""

    labels: Sequence[str]
    seeds: Sequence[int]

    def of(self, labels: set[str], same_seed: bool) -> list[tuple[int, int]]:
        # Runs of one label and seed differ in how tasks are mixed.
        return [
            (i, j)
            for i, j in self._all(same_seed)
            if {self.labels[i], self.labels[j]} == labels and not (same_seed and len(labels) == 1)
        ]

    def of_one_label(self) -> list[tuple[int, int]]:
        return [(i, j) for i, j in self._all(False) if self.labels[i] == self.labels[j]]

    def of_tasks(self, *, same_seed: bool) -> list[tuple[int, int]]:
        # A multitask model has the weights of all tasks: it is no task of its own.
        return [
            (i, j)
            for i, j in self._all(same_seed)
            if self.labels[i] != self.labels[j]
            and MULTITASK not in (self.labels[i], self.labels[j])
        ]

    def _all(self, same_seed: bool) -> list[tuple[int, int]]:
        pairs = itertools.combinations(range(len(self.labels)), 2)
        return [(i, j) for i, j in pairs if (self.seeds[i] == self.seeds[j]) == same_seed]


def _by_position(
    counts: Mapping[Position, Counts], pairs: Sequence[tuple[int, int]]
) -> dict[Position, Shared]:
    shared = {position: _shared(one, pairs) for position, one in counts.items()}
    return {position: one for position, one in shared.items() if one is not None}


def _shared(counts: Counts, pairs: Sequence[tuple[int, int]]) -> Shared | None:
    """Average over pairs; those of two empty masks have no Jaccard index and are not counted."""
    if not pairs:
        return None
    first, second = np.array(pairs).T
    jaccard, chance = counts.jaccard()[first, second], counts.chance_jaccard()[first, second]
    known = ~np.isnan(jaccard) & (chance > 0)
    if not known.any():
        return None
    return Shared(float(jaccard[known].mean()), float(chance[known].mean()), int(known.sum()))


def _headline(found: Sequence[MaskOverlap]) -> str:
    if not found:
        return ""
    overlap = min(found, key=lambda one: one.asked)
    between = [one for one in overlap.pairs if one.first != one.second and one.second != MULTITASK]
    if not between:
        return ""
    most = max(between, key=lambda one: one.shared.times_chance)
    return (
        f"{most.first} and {most.second} share most: {most.shared.times_chance:.1f} times chance "
        f"({most.seeds}, {overlap.method} at {overlap.asked:,} parameters)."
    )


def _figures(found: Sequence[MaskOverlap]) -> list[Figure]:
    """Draw a map of tasks and one of layers for each, each kind of one size and scale."""
    labels = max((len(one.labels) for one in found), default=0)
    times = [
        {
            place: shared.times_chance
            for place, shared in (one.between_tasks or one.between_both).items()
        }
        for one in found
    ]
    highest = max((value for one in times for value in one.values()), default=1.0)
    figures = []
    for index, (overlap, by_layer) in enumerate(zip(found, times, strict=True)):
        figures.append(_between_labels(f"masks-{index}", overlap, labels))
        if by_layer:
            figures.append(_by_layer(f"masks-{index}-layers", overlap, by_layer, highest))
    return figures


def _between_labels(name: str, overlap: MaskOverlap, room: int) -> Figure:
    labels = overlap.labels
    values = [
        [
            shared.jaccard if (shared := overlap.shared(one, other, same_seed=y < x)) else None
            for x, other in enumerate(labels)
        ]
        for y, one in enumerate(labels)
    ]
    seen = [
        f"{one.first} and {one.second}, {one.seeds}: {one.shared.jaccard:.2f}"
        for one in overlap.pairs
    ]
    return Figure(
        name=name,
        caption=f"Jaccard index of masks: {overlap.method}, {overlap.asked:,} parameters. Above "
        "the diagonal runs have the same seed, on and below it different ones.",
        alt=f"Matrix of overlaps: {'; '.join(seen)}.",
        draw=lambda: heat_map(labels, labels, values, highest=1.0, room=(room, room)),
        wide=False,
    )


def _by_layer(
    name: str, overlap: MaskOverlap, times: Mapping[Position, float], highest: float
) -> Figure:
    layers, matrices, values = grid(times)
    (layer, matrix), most = max(times.items(), key=lambda one: one[1])
    seeds = "the same seed" if overlap.between_tasks else "different seeds"
    return Figure(
        name=name,
        caption=f"Overlap between tasks in multiples of chance: {overlap.method}, "
        f"{overlap.asked:,} parameters, {seeds}.",
        alt=f"Heat map by layer and matrix; most is {most:.1f} in layer {layer}, {matrix}.",
        draw=lambda: heat_map(layers, matrices, values, digits=1, highest=highest),
        wide=False,
    )


def _pairs(found: Sequence[MaskOverlap]) -> Table:
    rows = (
        {
            "method": overlap.method,
            "asked": overlap.asked,
            "mask of": pair.first,
            "and of": pair.second,
            "seeds": pair.seeds,
            "pairs": pair.shared.pairs,
            "Jaccard": pair.shared.jaccard,
            "by chance": pair.shared.chance,
            "times chance": pair.shared.times_chance,
        }
        for overlap in found
        for pair in sorted(overlap.pairs, key=lambda one: -one.shared.times_chance)
    )
    caption = f"Who shares most ({MULTITASK}: one model of all tasks)"
    return table("masks", caption, rows, digits={"times chance": 2})


def _positions(found: Sequence[MaskOverlap]) -> Table:
    rows = []
    for overlap in found:
        kinds = {
            "between tasks": overlap.between_tasks,
            "between tasks and seeds": overlap.between_both,
            "between seeds": overlap.between_seeds,
        }
        for (layer, matrix), density in overlap.density.items():
            row = {"method": overlap.method, "asked": overlap.asked, "layer": layer}
            row |= {"matrix": matrix, "density": density}
            for kind, by_position in kinds.items():
                shared = by_position.get((layer, matrix))
                row |= {kind: getattr(shared, "jaccard", None)}
                row |= {f"{kind}, by chance": getattr(shared, "chance", None)}
            rows.append(row)
    caption = "Jaccard index by layer and matrix"
    return table("masks-layers", caption, rows, fold=0, digits={"density": 4})
