"""What tasks share: masks of one method and size, between tasks and seeds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from multiprune.report.findings.layers import Position, position_of
from multiprune.report.findings.shared_masks import Counts, count_by_path, pooled
from multiprune.report.records.frame import LeftOut
from multiprune.runs.masks import Masks, read_masks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from multiprune.report.findings.model import Model
    from multiprune.report.findings.overview import Overview
    from multiprune.report.records.frame import Row

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
class Pair:
    """Two labels, whether pairs are of runs of the same seed, and what these share."""

    first: str
    second: str
    same_seed: bool
    shared: Shared


@dataclass(frozen=True, kw_only=True)
class Overlap:
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
    pairs: Sequence[Pair]
    between_tasks: Mapping[Position, Shared]
    between_both: Mapping[Position, Shared]
    between_seeds: Mapping[Position, Shared]
    density: Mapping[Position, float]

    def shared(self, first: str, second: str, *, same_seed: bool) -> Shared | None:
        """Return what two labels share, in either order; None if there are no such pairs."""
        for one in self.pairs:
            if {one.first, one.second} == {first, second} and one.same_seed == same_seed:
                return one.shared
        return None


@dataclass(frozen=True)
class Overlaps:
    """The overlap at each method and size, and the runs that have no mask to compare."""

    found: Sequence[Overlap]
    left_out: Sequence[LeftOut]


def overlaps(overview: Overview) -> Overlaps:
    """Read the masks of all models of ``overview`` and compare those of one method and size."""
    by_size: dict[tuple[str, int], list[Model]] = {}
    for model in overview.models:
        if len(model.tasks) == 1 or model.tasks == overview.tasks:
            by_size.setdefault((model.method, model.asked), []).append(model)
    found: list[Overlap] = []
    left_out: list[LeftOut] = []
    for (method, asked), models in sorted(by_size.items()):
        masks, unread = _read(run for model in models for run in model.runs)
        left_out += unread
        if len(masks) < 2:
            left_out += [
                LeftOut(row.path, f"no other mask of {method} at {asked:,} parameters")
                for row, _ in masks
            ]
            continue
        try:
            found.append(_overlap(method, asked, masks))
        except ValueError as error:
            left_out += [LeftOut(row.path, str(error)) for row, _ in masks]
    return Overlaps(found, left_out)


def _read(rows: Iterable[Row]) -> tuple[list[tuple[Row, Masks]], list[LeftOut]]:
    masks, left_out = [], []
    for row in rows:
        try:
            masks.append((row, read_masks(row.path, row.record.density)))
        except (ValueError, OSError) as error:
            left_out.append(LeftOut(row.path, str(error)))
    return masks, left_out


def _overlap(method: str, asked: int, masks: Sequence[tuple[Row, Masks]]) -> Overlap:
    labels = [row.tasks[0] if len(row.tasks) == 1 else MULTITASK for row, _ in masks]
    names = sorted(set(labels), key=lambda label: (label == MULTITASK, label))
    by_path = count_by_path([one for _, one in masks])
    by_position: dict[Position, Counts] = {}
    for path, counts in by_path.items():
        position = position_of(path)
        before = by_position.get(position)
        by_position[position] = counts if before is None else before + counts
    whole = pooled(by_path)
    chosen = _Pairs(labels, [row.record.seed for row, _ in masks])
    between = itertools.combinations_with_replacement(names, 2)
    pairs = [
        Pair(first, second, same_seed, shared)
        for first, second in between
        for same_seed in (True, False)
        if (shared := _shared(whole, chosen.of({first, second}, same_seed)))
    ]
    return Overlap(
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
