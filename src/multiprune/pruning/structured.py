"""Structured pruning by importance: by gradients, by weights, or at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from multiprune.arguments import check_is
from multiprune.pruning.by_task import checked
from multiprune.pruning.importance import Importance, Scores
from multiprune.pruning.layer_state import LayerState
from multiprune.pruning.removal import HEADS, NEURONS, relative_scores, scores_per_parameter
from multiprune.pruning.units import UnitPruner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from multiprune.budget import Budget
    from multiprune.models.structure import Layer
    from multiprune.pruning.by_task import ByTask
    from multiprune.pruning.removal import Kept

_SCORES = ("heads", "query_key", "value", "neurons", "blocks", "layer")


class ImportanceState(LayerState):
    """Also holds the importance of one layer's units, averaged over steps or summed up."""

    def __init__(self, layer: Layer, by_task: ByTask | None = None) -> None:
        super().__init__(layer)
        self.by_task = by_task
        for name in _SCORES[:-2]:
            mask = self.get_buffer(f"{name}_mask")
            self._add(name, torch.zeros_like(mask, dtype=torch.float32))
        device = self.get_buffer("heads_mask").device
        self._add("blocks", torch.zeros(2, device=device))
        self._add("layer", torch.zeros((), device=device))

    def importance(self) -> Scores:
        """Return what ``smooth`` or ``add`` has gathered, on the CPU."""
        return Scores(*(one.cpu() for one in self._gathered()))

    def add(self, measured: Scores) -> None:
        """Add what was measured to what is held."""
        for name, gathered in zip(_SCORES, self._gathered(), strict=True):
            gathered.add_(getattr(measured, name))

    def smooth(self, measured: Scores, smoothing: float) -> None:
        """Move the importance towards what was measured."""
        for name, gathered in zip(_SCORES, self._gathered(), strict=True):
            gathered.lerp_(getattr(measured, name), 1 - smoothing)

    def _add(self, name: str, zeros: Tensor) -> None:
        gathered = zeros if self.by_task is None else self.by_task.apart(zeros)
        self.register_buffer(f"{name}_importance", gathered)

    def _gathered(self) -> list[Tensor]:
        """Return views on what is held, of the task that is looked at where tasks are apart."""
        held = [self.get_buffer(f"{name}_importance") for name in _SCORES]
        return held if self.by_task is None else [one[self.by_task.current] for one in held]


class Structured(UnitPruner):
    """Removes what matters least: per parameter it saves, or relative to its kind and layer.

    Args:
        budget: how much may stay.
        importance: what matters.
        granularity: kinds of what may go.
        by_task: keeps tasks apart, and joins their rankings; for importance that reads gradients.
    """

    def __init__(
        self,
        *,
        budget: Budget,
        importance: Importance,
        granularity: Sequence[str] = (HEADS, NEURONS),
        by_task: ByTask | None = None,
    ) -> None:
        super().__init__(budget=budget, granularity=granularity)
        check_is(Importance, "GateFisher(smoothing=0.998)", importance=importance)
        self.importance = importance
        self.by_task = checked(by_task)
        if by_task is not None and not importance.reads_gradients:
            raise ValueError(
                "`by_task` keeps apart what gradients say, but "
                f"{type(importance).__name__} reads none: leave it out."
            )
        #: What the gradients of a step say, until it is known that the optimizer took it.
        self._measured: list[Scores] = []

    @override
    def new_state(self, layer: Layer) -> LayerState:
        if not self.importance.reads_gradients:
            return LayerState(layer)
        return ImportanceState(layer, self.by_task)

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
        return self.scores_among([state.kept() for state in self.states])

    def scores_among(self, kept: Sequence[Kept]) -> list[Scores]:
        """Return the scores by which units are ranked with those that are ``kept``."""
        return self.of_all_tasks(lambda: self.comparable(self.absolute_scores(), kept), kept)

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
