"""Structured pruning by importance: by gradients, by weights, or at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from multiprune.arguments import check_is
from multiprune.pruning.by_task import checked
from multiprune.pruning.hidden_state import HiddenState
from multiprune.pruning.importance import Importance, Scores, relative_to_layer
from multiprune.pruning.layer_state import LayerState
from multiprune.pruning.removal import (
    HEADS,
    HIDDEN,
    NEURONS,
    relative_scores,
    scores_per_parameter,
)
from multiprune.pruning.units import UnitPruner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.budget import Budget
    from multiprune.models.hidden import HiddenStates
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


class ImportantHiddenState(HiddenState):
    """Also holds the importance of hidden dimensions, averaged over steps."""

    def __init__(self, parts: HiddenStates) -> None:
        super().__init__(parts)
        self.register_buffer("hidden_importance", torch.zeros_like(self.mask, dtype=torch.float32))

    @property
    def importance(self) -> Float[Tensor, "hidden"]:
        """What ``Structured`` has gathered."""
        return self.get_buffer("hidden_importance")


class Structured(UnitPruner):
    """Removes what matters least: per parameter it saves, or relative to its kind and layer.

    Args:
        budget: how much may stay.
        importance: what matters.
        granularity: kinds of what may go.
        by_task: keeps tasks apart, and joins their rankings; for importance that reads gradients.
    """

    knows_hidden = True

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
        if HIDDEN in granularity and not importance.knows_hidden:
            raise ValueError(
                f"{type(importance).__name__} cannot tell how much hidden dimensions matter: leave "
                "`hidden` out of `granularity`."
            )
        if HIDDEN in granularity and by_task is not None:
            raise ValueError(
                "`by_task` cannot keep apart what tasks say of hidden dimensions: leave it out, or "
                "`hidden` out of `granularity`."
            )
        #: What the gradients of a step say, until it is known that the optimizer took it.
        self._measured: list[Scores] = []
        self._measured_hidden: Float[Tensor, "hidden"] | None = None

    @override
    def new_state(self, layer: Layer) -> LayerState:
        if not self.importance.reads_gradients:
            return LayerState(layer)
        return ImportanceState(layer, self.by_task)

    @override
    def new_hidden_state(self, parts: HiddenStates) -> HiddenState:
        if not self.importance.reads_gradients:
            return HiddenState(parts)
        return ImportantHiddenState(parts)

    @property
    def reads_gradients(self) -> bool:  # type: ignore[override]
        """Whether what survives depends on gradients of weights."""
        return self.importance.reads_gradients

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        if self.importance.reads_gradients and not self.is_cut:
            self._measured = self._measure()
            if self.hidden is not None:
                self._measured_hidden = self.importance.measure_hidden(self.hidden.state.parts)
        super().before_step(learning_rate_scale)

    @override
    def after_step(self) -> None:
        if self._measured:
            for state, measured in zip(self.states, self._measured, strict=True):
                assert isinstance(state, ImportanceState)
                state.smooth(measured, self.importance.smoothing)
            self._measured = []
        if self.hidden is not None and self._measured_hidden is not None:
            assert isinstance(self.hidden.state, ImportantHiddenState)
            change = 1 - self.importance.smoothing
            self.hidden.state.importance.lerp_(self._measured_hidden, change)
            self._measured_hidden = None
        super().after_step()

    @override
    def skip_step(self) -> None:
        self._measured, self._measured_hidden = [], None  # gradients that overflowed say nothing

    @override
    def scores(self) -> list[Scores]:
        return self.scores_among([state.kept() for state in self.states])

    def scores_among(self, kept: Sequence[Kept]) -> list[Scores]:
        """Return the scores by which units are ranked with those that are ``kept``."""
        return self.of_all_tasks(lambda: self.comparable(self.absolute_scores(), kept), kept)

    @override
    def hidden_scores(self, kept: Sequence[Kept]) -> Float[Tensor, "hidden"]:
        assert self.hidden is not None
        state = self.hidden.state
        if isinstance(state, ImportantHiddenState):
            scores = state.importance.cpu()
        else:
            scores = self.importance.measure_hidden(state.parts).cpu()
        if self.importance.is_loss:
            return scores / max(1, self._sizes.hidden_cost(kept))
        return relative_to_layer(scores, state.mask.cpu())

    def comparable(self, scores: Sequence[Scores], kept: Sequence[Kept]) -> list[Scores]:
        """Return scores, of which ``kept`` is left, that compare between layers and kinds."""
        if self.importance.is_loss:
            return scores_per_parameter(scores, kept, self._sizes.costs)
        return relative_scores(scores, kept)

    def absolute_scores(self) -> list[Scores]:
        """Return the importance as it is, by layer, on the CPU."""
        states = [state for state in self.states if isinstance(state, ImportanceState)]
        if states:
            return [state.importance() for state in states]
        return [measured.cpu() for measured in self._measure()]

    def _measure(self) -> list[Scores]:
        return [self.importance.measure(layer, i) for i, layer in enumerate(self.layers)]
