"""Structured pruning by importance: of gradients, of weights, or random as a control."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from multiprune.arguments import check_is
from multiprune.pruning.importance import Importance, Scores
from multiprune.pruning.layer_state import LayerState
from multiprune.pruning.removal import HEADS, NEURONS, relative_scores, scores_per_parameter
from multiprune.pruning.units import UnitPruner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.budget import Budget
    from multiprune.models.structure import Layer
    from multiprune.pruning.removal import Kept

_SCORES = ("heads", "query_key", "value", "neurons", "blocks", "layer")


class ImportanceState(LayerState):
    """Also holds the importance of one layer's units, averaged over steps or summed up."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        for name in _SCORES[:-2]:
            mask = self.get_buffer(f"{name}_mask")
            self.register_buffer(f"{name}_importance", torch.zeros_like(mask, dtype=torch.float32))
        device = self.get_buffer("heads_mask").device
        self.register_buffer("blocks_importance", torch.zeros(2, device=device))
        self.register_buffer("layer_importance", torch.zeros((), device=device))

    def importance(self) -> Scores:
        """Return what ``smooth`` or ``add`` has gathered, on the CPU."""
        return Scores(*(self.get_buffer(f"{name}_importance").cpu() for name in _SCORES))

    def add(self, measured: Scores) -> None:
        """Add what was measured to what is held."""
        for name in _SCORES:
            self.get_buffer(f"{name}_importance").add_(getattr(measured, name))

    def smooth(self, measured: Scores, smoothing: float) -> None:
        """Move the importance towards what was measured."""
        for name in _SCORES:
            gathered = self.get_buffer(f"{name}_importance")
            gathered.lerp_(getattr(measured, name), 1 - smoothing)


class Structured(UnitPruner):
    """Removes what matters least: per parameter it saves, or relative to its kind and layer.

    Args:
        budget: how much may stay.
        importance: what matters.
        granularity: kinds of what may go.
    """

    def __init__(
        self,
        *,
        budget: Budget,
        importance: Importance,
        granularity: Sequence[str] = (HEADS, NEURONS),
    ) -> None:
        super().__init__(budget=budget, granularity=granularity)
        check_is(Importance, "GateFisher(smoothing=0.998)", importance=importance)
        self.importance = importance
        #: What the gradients of a step say, until it is known that the optimizer took it.
        self._measured: list[Scores] = []

    @override
    def new_state(self, layer: Layer) -> LayerState:
        return ImportanceState(layer) if self.importance.reads_gradients else LayerState(layer)

    @property
    def reads_gradients(self) -> bool:  # type: ignore[override]
        """Whether what survives depends on gradients of weights."""
        return self.importance.reads_gradients

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        if self.importance.reads_gradients and not self.is_cut:
            self._measured = self._measure()
        super().before_step(learning_rate_scale)

    @override
    def after_step(self) -> None:
        if self._measured:
            for state, measured in zip(self.states, self._measured, strict=True):
                assert isinstance(state, ImportanceState)
                state.smooth(measured, self.importance.smoothing)
            self._measured = []
        super().after_step()

    @override
    def skip_step(self) -> None:
        self._measured = []  # gradients that overflowed say nothing

    @override
    def scores(self) -> list[Scores]:
        return self.comparable(self.absolute_scores(), [state.kept() for state in self.states])

    def comparable(self, scores: Sequence[Scores], kept: Sequence[Kept]) -> list[Scores]:
        """Return scores, of which ``kept`` is left, that compare between layers and kinds."""
        if self.importance.is_loss:
            return scores_per_parameter(scores, kept, self._costs)
        return relative_scores(scores, kept)

    def absolute_scores(self) -> list[Scores]:
        """Return the importance as it is, by layer, on the CPU."""
        states = [state for state in self.states if isinstance(state, ImportanceState)]
        if states:
            return [state.importance() for state in states]
        return [measured.cpu() for measured in self._measure()]

    def _measure(self) -> list[Scores]:
        return [self.importance.measure(layer, i) for i, layer in enumerate(self.layers)]
