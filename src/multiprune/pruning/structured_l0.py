"""Structured pruning by L0 gates on heads, neurons, blocks, layers and hidden dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from multiprune.pruning.evaluation_gates import EvaluationGates, FlopGates
from multiprune.pruning.gated_state import (
    ATTENTION_BLOCK,
    FEED_FORWARD_BLOCK,
    GATE_KINDS,
    GatedState,
)
from multiprune.pruning.hidden_state import GatedHiddenState
from multiprune.pruning.importance import Scores
from multiprune.pruning.layer_gates import LayerGates
from multiprune.pruning.removal import BLOCKS, HEADS, HIDDEN, LAYERS, NEURONS
from multiprune.pruning.units import UnitPruner

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

    from multiprune.budget import Budget
    from multiprune.models.hidden import HiddenStates
    from multiprune.models.structure import Layer
    from multiprune.pruning.hidden_state import HiddenState
    from multiprune.pruning.layer_state import LayerState
    from multiprune.pruning.removal import Kept, UnitCosts


class StructuredL0(UnitPruner):
    """Learns a random gate for each head, neuron and block, under a constraint on expected size.

    CoFi of Xia, Zhong & Chen (2022), "Structured Pruning Learns Compact and Accurate Models".
    Until the first ``prune`` above 0 the gates are 1. Then they learn, while the target of the
    expected size goes from the whole to the budget; masks stay whole meanwhile. At the end what has
    the smallest ``log_alpha`` goes until the budget is met, gates are multiplied into the weights,
    and training goes on without.

    As in the authors' code (princeton-nlp/CoFiPruning, ``models/l0_module.py``): a head or neuron
    is open if its own gate and that of its block are, attention and feed-forward network apart, so
    that the expected size is made of products of probabilities, also of those of hidden dimensions,
    which share one vector of gates behind every norm; all but neurons start open, at the upper
    clamp of ``log_alpha``, and only neurons at ``drop_rate`` (theirs is 0.5); the penalty on
    the size; the gates to evaluate with (``FlopGates``); Adam for gates and multipliers (theirs
    with 0.01 for both); and, with ``schedule=linear``, a target that moves in equal steps.

    Not theirs: norms behind a closed block that go on, where theirs are skipped; the granularity
    ``layers``, a gate on both blocks of a layer; the lower clamp of ``log_alpha``, 1e-3 in place of
    1e-2; the start without noise (theirs has a standard deviation of 0.01); a target that moves
    until the gates close, where theirs reaches the budget after some epochs and stays there;
    learning rates that follow the schedule of the weights'; biases that go with their block rather
    than in shares with its units; one ranking of all gates at the end, so that the budget is met,
    where theirs closes as many gates of each vector as are expected to be; gates of hidden
    dimensions behind norms only, where theirs are behind embeddings and blocks, too, in front of
    norms that leave out the same dimensions. Missing: their distillation of layers that are matched
    to the teacher's anew in each step.

    Args:
        budget: how much may stay.
        drop_rate: of neurons at first, in (0, 1).
        gate_learning_rate: of the gates.
        multiplier_learning_rate: of the two multipliers of the penalty.
        granularity: what has gates, some of ``heads``, ``neurons``, ``blocks``, ``layers``,
            ``hidden``.
        seed: of the noise of the gates.
        evaluation_gates: what gates are without noise; by default the authors'.
    """

    is_gradual = False
    knows_hidden = True

    def __init__(
        self,
        *,
        budget: Budget,
        drop_rate: float,
        gate_learning_rate: float,
        multiplier_learning_rate: float,
        granularity: Sequence[str] = (HEADS, NEURONS, BLOCKS),
        seed: int = 0,
        evaluation_gates: EvaluationGates | None = None,
    ) -> None:
        super().__init__(budget=budget, granularity=granularity)
        known = [*dict.fromkeys(GATE_KINDS.values()), HIDDEN]
        if unknown := [kind for kind in granularity if kind not in known]:
            raise ValueError(
                f"Gates must be on some of {', '.join(known)}, but `granularity` has "
                f"{', '.join(unknown)}."
            )
        self.gates = LayerGates(
            drop_rate=drop_rate,
            learning_rate=gate_learning_rate,
            multiplier_learning_rate=multiplier_learning_rate,
            seed=seed,
            evaluation=FlopGates() if evaluation_gates is None else evaluation_gates,
        )
        self._hooks: list[RemovableHandle] = []

    @override
    def new_state(self, layer: Layer) -> LayerState:
        return GatedState(layer)

    @override
    def new_hidden_state(self, parts: HiddenStates) -> HiddenState:
        return GatedHiddenState(parts)

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        super().prepare(model, encoder)
        states = self.gated_states()
        vectors = [
            states[number].vector(kind, self.layers[number]) for number, kind in self._vectors()
        ]
        if (hidden := self._hidden_state()) is not None:
            vectors.append(hidden.vector())
        self.gates.put_into(self._encoder, vectors, self._expected_size)
        for layer, state in zip(self.layers, states, strict=True):
            self._hooks += state.attach(layer)

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        super().before_step(learning_rate_scale)
        self.gates.read_gradients(learning_rate_scale)

    @override
    def after_step(self) -> None:
        super().after_step()
        self.gates.take_step()

    @override
    def prune(self, amount: float) -> None:
        if amount <= 0 or not self.excess or self.is_cut:
            return
        if amount >= 1:
            super().prune(amount)
            self._fold_gates()
            return
        self.gates.aim(amount, 1 - self.excess / self._sizes.dense, first=1.0)

    @override
    def scores(self) -> list[Scores]:
        return [
            Scores(
                heads=gates[HEADS].cpu(),
                query_key=torch.zeros(layer.heads, layer.head_size),
                value=torch.zeros(layer.heads, layer.head_size),
                neurons=gates[NEURONS].cpu(),
                blocks=torch.cat([gates[ATTENTION_BLOCK], gates[FEED_FORWARD_BLOCK]]).cpu(),
                layer=gates[LAYERS][0].cpu(),
            )
            for layer, gates in zip(
                self.layers, self._by_layer(self.gates.log_alpha()), strict=True
            )
        ]

    @override
    def hidden_scores(self, kept: Sequence[Kept]) -> Float[Tensor, "hidden"]:
        return self.gates.log_alpha()[-1].cpu()

    @override
    def shrink(self, optimizer: Optimizer | None = None) -> bool:
        was_cut = super().shrink(optimizer)
        if was_cut and not self.gates.learning:
            self._detach()  # all gates are 1, and hooks on a layer that is gone cannot be copied
        return was_cut

    @override
    def _make_permanent(self) -> None:
        self._fold_gates()
        self._detach()
        super()._make_permanent()
        self.gates.remove()

    def _detach(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def gated_states(self) -> list[GatedState]:
        """Return the state of each layer, which moves with the model."""
        return [state for state in self.states if isinstance(state, GatedState)]

    def _vectors(self) -> list[tuple[int, str]]:
        """Return what each vector of gates is of: the number of a layer, and a kind."""
        kinds = [kind for kind, unit in GATE_KINDS.items() if unit in self.granularity]
        return [
            (number, kind)
            for number, layer in enumerate(self.layers)
            for kind in kinds
            if kind not in (NEURONS, FEED_FORWARD_BLOCK) or layer.neurons
        ]

    def _by_layer(
        self, vectors: Sequence[Float[Tensor, "_"]]
    ) -> list[dict[str, Float[Tensor, "_"]]]:
        """Sort vectors of gates by layer and kind, with ones for kinds that have no gates.

        What follows those of layers, of hidden dimensions, is left out.
        """
        states = self.gated_states()
        found = [
            {kind: torch.ones_like(state.gate(kind)) for kind in GATE_KINDS} for state in states
        ]
        for (number, kind), vector in zip(self._vectors(), vectors, strict=False):
            found[number][kind] = vector
        return found

    def _expected_size(self, probabilities: Sequence[Float[Tensor, "_"]]) -> Float[Tensor, ""]:
        """Return the expected size, as a fraction of the size of all that has gates.

        A product of independent gates is expected to be that of their probabilities.
        """
        layers = self._by_layer(probabilities)
        if self.hidden is None:
            return self._expected_units(layers, self._sizes.units.whole) / self._sizes.dense
        none, one = (self._expected_units(layers, self._sizes.units.at(left)) for left in (0, 1))
        left = probabilities[-1].sum()
        expected = none + left * (one - none + self._sizes.besides(1))
        return expected / self._sizes.dense

    def _expected_units(
        self, layers: Sequence[dict[str, Float[Tensor, "_"]]], costs: Sequence[UnitCosts]
    ) -> Float[Tensor, ""]:
        sizes = [
            gates[LAYERS]
            * (
                gates[ATTENTION_BLOCK]
                * (gates[HEADS].sum() * (layer.head_size * cost.head_dimension) + cost.attention)
                + gates[FEED_FORWARD_BLOCK]
                * (gates[NEURONS].sum() * cost.neuron + cost.feed_forward)
                + cost.rest
            )
            for layer, cost, gates in zip(self.layers, costs, layers, strict=True)
        ]
        return torch.cat(sizes).sum()

    def _hidden_state(self) -> GatedHiddenState | None:
        state = None if self.hidden is None else self.hidden.state
        return state if isinstance(state, GatedHiddenState) else None

    def _fold_gates(self) -> None:
        if self.gates.learning:
            self.gates.end()
            for layer, state in zip(self.layers, self.gated_states(), strict=True):
                state.fold(layer)
            if (hidden := self._hidden_state()) is not None:
                hidden.fold()
