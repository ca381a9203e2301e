"""Greedy removal of candidates that fills the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.pruning.remaining_layer import Candidate, RemainingLayer
from multiprune.pruning.removal import ATTENTION, BLOCKS, HEAD_DIMENSIONS, HEADS, LAYERS, NEURONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.pruning.removal import Kept, UnitCosts


class RemovalWalk:
    """Removes candidates in their order, as far as they fit.

    ``size`` is what may be left now, ``final`` what may be left after the last ranking: the same,
    if this is the last. ``sizes`` is what is left at first, after the first removal, and so on.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        kept: Sequence[Kept],
        costs: Sequence[UnitCosts],
        *,
        size: int,
        final: int,
    ) -> None:
        self.candidates, self.size, self.final = candidates, size, final
        self._kept, self._costs = kept, costs
        self._begin()
        self._smallest = min(filter(None, map(self._saving, candidates)), default=0)
        alike = {(one.dimensions * one.costs.head_dimension, one.dropped) for one in self.layers}
        kinds = {one.kind for one in candidates}
        # What a head saves, where all save the same and only heads and neurons go.
        self._head = alike.pop()[0] if len(alike) == 1 and kinds == {HEADS, NEURONS} else 0

    def remove_what_fits(self) -> bool:
        """Go through all candidates once; return whether any of them went."""
        before = len(self.sizes)
        for candidate in self.candidates:
            if self.sizes[-1] <= self.size:
                break
            if self._take(candidate) or candidate.kind not in (BLOCKS, LAYERS):
                continue
            if not self._saving(candidate):
                continue
            for unit in self.candidates:
                if _is_in(unit, candidate) and self.sizes[-1] > self.size:
                    self._take(unit)
        return len(self.sizes) > before

    def remove_smallest(self) -> bool:
        """In the last ranking, remove the smallest unit if too much is left; return whether."""
        if self.sizes[-1] <= self.final or self.size > self.final:
            return False
        savings = [(self._saving(one), place) for place, one in enumerate(self.candidates)]
        saving, place = min((one for one in savings if one[0]), default=(0, 0))
        if saving:
            self._remove(self.candidates[place])
        return saving > 0

    def fill_room(self) -> None:
        """Bring back what fits into the room below the final size, the most important first."""
        room, removed = self.final - self.sizes[-1], self.removed
        if room < self._smallest:
            return
        staying: set[Candidate] = set()
        returning, found = sorted(removed, key=lambda one: one.score, reverse=True), -1
        while found < len(staying):  # units of a block can come back once the block has
            found = len(staying)
            for candidate in returning:
                layer = self.layers[candidate.layer]
                cost = 0 if candidate in staying else layer.cost_to_restore(candidate)
                if 0 < cost <= room:
                    layer.restore(candidate)
                    staying.add(candidate)
                    room -= cost
        self._begin()
        for candidate in removed:
            if candidate not in staying:
                self._remove(candidate)

    def _begin(self) -> None:
        self.removed: list[Candidate] = []
        pairs = zip(self._kept, self._costs, strict=True)
        self.layers = [RemainingLayer(kept, costs) for kept, costs in pairs]
        self.sizes = [sum(one.size for one in self.layers)]
        self._count_alive()
        self._neurons = sum(one.spare_neurons for one in self.layers)

    def _take(self, candidate: Candidate) -> bool:
        saving = self._saving(candidate)
        if not saving or self.sizes[-1] - saving <= self.final - self._smallest:
            return False
        if candidate.kind == NEURONS and self._is_needed_later(saving):
            return False
        self._remove(candidate)
        return True

    def _is_needed_later(self, neuron: int) -> bool:
        """Return whether this neuron must go last, for the room that whole heads do not fill."""
        if self._neurons - neuron >= self._head:
            return False
        return self._comes_down(self._neurons, self.sizes[-1]) and not self._comes_down(
            self._neurons - neuron, self.sizes[-1] - neuron
        )

    def _comes_down(self, neurons: int, size: int) -> bool:
        """Return whether heads, and ``neurons`` for the rest, lead to just below the final size."""
        over = size - self.final
        heads = sum(one.heads - 1 for one in self.layers)
        return over - min(heads, (over + self._smallest - 1) // self._head) * self._head <= neurons

    def _saving(self, candidate: Candidate) -> int:
        """Return what would be saved, which is 0 of what is gone or must stay."""
        layer = self.layers[candidate.layer]
        if candidate.kind == LAYERS:
            return layer.size if self._alive > 1 else 0
        if candidate.kind == BLOCKS and self._blocks == 1:
            return 0
        return layer.saving(candidate)

    def _remove(self, candidate: Candidate) -> None:
        before = self.layers[candidate.layer].spare_neurons
        self.sizes.append(self.sizes[-1] - self._saving(candidate))
        self.layers[candidate.layer].remove(candidate, len(self.removed))
        self.removed.append(candidate)
        if candidate.kind in (BLOCKS, LAYERS):
            self._count_alive()
        self._neurons -= before - self.layers[candidate.layer].spare_neurons

    def _count_alive(self) -> None:
        """Count the layers of which something is left, and the blocks."""
        self._alive = sum(not one.dropped for one in self.layers)
        self._blocks = sum((one.heads > 0) + (one.neurons > 0) for one in self.layers)


def _is_in(unit: Candidate, whole: Candidate) -> bool:
    """Whether a candidate is a part of a layer, or of a block, that is another candidate."""
    if unit.layer != whole.layer:
        return False
    if whole.kind == BLOCKS:
        return unit.kind in ((HEADS, HEAD_DIMENSIONS) if whole.index == ATTENTION else (NEURONS,))
    return whole.kind == LAYERS
