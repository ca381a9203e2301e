"""Structured pruning by learned gates: on heads, neurons and layers at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from multiprune.models.architectures import VALUE
from multiprune.pruning.importance import Scores
from multiprune.pruning.layer_gates import GateVector, LayerGates
from multiprune.pruning.layer_state import LayerState
from multiprune.pruning.removal import HEADS, LAYERS, NEURONS
from multiprune.pruning.units import UnitPruner

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

    from multiprune.budget import Budget
    from multiprune.models.structure import Layer
    from multiprune.pruning.evaluation_gates import EvaluationGates

_KINDS = (HEADS, NEURONS, LAYERS)

#: What gates of a kind multiply.
_GATED = {HEADS: VALUE, NEURONS: NEURONS}


class GatedState(LayerState):
    """Also holds the gates of one layer, and multiplies by them.

    Gates of heads and neurons multiply what the last linear layers of the attention and of the
    feed-forward network read, that of the layer what they return. ``..._gate`` is for training,
    ``..._evaluation_gate`` for the rest.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.head_size = layer.head_size
        weight = layer.output_of(VALUE).weight
        for kind, shape in zip(_KINDS, ((layer.heads,), (layer.neurons,), (1,)), strict=True):
            self.register_buffer(f"{kind}_gate", weight.new_ones(shape))
            self.register_buffer(f"{kind}_evaluation_gate", weight.new_ones(shape))

    def attach(self, layer: Layer) -> list[RemovableHandle]:
        """Put the gates into the forward pass of the layer."""
        gate = {VALUE: self._gate_heads, NEURONS: self._gate_neurons}
        handles = []
        for units, output in layer.outputs():
            handles.append(output.register_forward_pre_hook(gate[units]))
            handles.append(output.register_forward_hook(self._gate_layer))
        return handles

    def vector(self, kind: str, layer: Layer) -> GateVector:
        """Return the gates of a kind, and the linear layers whose inputs or outputs they gate."""
        if kind == LAYERS:
            outputs = [output for _, output in layer.outputs()]
            return GateVector(self, f"{kind}_", outputs, gates_outputs=True)
        return GateVector(self, f"{kind}_", [layer.output_of(_GATED[kind])])

    def gate(self, kind: str, *, training: bool = True) -> Tensor:
        """Return the gates of a kind as they are now."""
        return self.get_buffer(f"{kind}_gate" if training else f"{kind}_evaluation_gate")

    def set_gates(
        self, kind: str, training: Float[Tensor, "gates"], evaluation: Float[Tensor, "gates"]
    ) -> None:
        """Take over the values of all gates of a kind."""
        self.gate(kind).copy_(training)
        self.gate(kind, training=False).copy_(evaluation)

    @torch.no_grad()
    def fold(self, layer: Layer) -> None:
        """Multiply the gates without noise into the weights, and leave gates of 1."""
        heads, neurons, whole = (self.gate(kind, training=False) for kind in _KINDS)
        inputs = {VALUE: heads.repeat_interleave(self.head_size), NEURONS: neurons}
        for units, output in layer.outputs():
            gates = inputs[units]
            output.weight.mul_(gates * whole)
            if output.bias is not None:
                output.bias.mul_(whole)
        for kind in _KINDS:
            ones = torch.ones_like(self.gate(kind))
            self.set_gates(kind, ones, ones)

    def _gate_heads(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        gate = self.gate(HEADS, training=module.training)
        return _gated(inputs, gate[:, None].expand(-1, self.head_size).reshape(-1))

    def _gate_neurons(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        return _gated(inputs, self.gate(NEURONS, training=module.training))

    def _gate_layer(self, module: nn.Module, _: tuple[Tensor], output: Tensor) -> Tensor:
        return output * self.gate(LAYERS, training=module.training).to(output.dtype)


class StructuredL0(UnitPruner):
    """Learns a random gate for each head, neuron and layer, under a constraint on expected size.

    CoFi of Xia, Zhong & Chen (2022), "Structured Pruning Learns Compact and Accurate Models",
    without its gates on hidden dimensions and without distillation: a head or neuron is open if its
    own gate and that of its layer are. Until the first ``prune`` above 0 the gates are 1. Then they
    learn, while the target of the expected size goes from where it starts to the budget; masks stay
    whole meanwhile. At the end what has the smallest ``log_alpha`` goes until the budget is met,
    gates are multiplied into the weights, and training goes on without.

    Both learning rates are those of Adam, and follow the schedule of the weights'.
    ``evaluation_gates`` says what gates are without noise: by default those of Louizos et al.
    """

    is_gradual = False

    def __init__(
        self,
        *,
        budget: Budget,
        drop_rate: float,
        gate_learning_rate: float,
        multiplier_learning_rate: float,
        granularity: Sequence[str] = _KINDS,
        seed: int = 0,
        evaluation_gates: EvaluationGates | None = None,
    ) -> None:
        super().__init__(budget=budget, granularity=granularity)
        if unknown := [kind for kind in granularity if kind not in _KINDS]:
            raise ValueError(
                f"Gates must be on some of {', '.join(_KINDS)}, but `granularity` has "
                f"{', '.join(unknown)}."
            )
        self.gates = LayerGates(
            drop_rate=drop_rate,
            learning_rate=gate_learning_rate,
            multiplier_learning_rate=multiplier_learning_rate,
            seed=seed,
            evaluation=evaluation_gates,
        )
        self._hooks: list[RemovableHandle] = []

    @override
    def new_state(self, layer: Layer) -> LayerState:
        return GatedState(layer)

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        super().prepare(model, encoder)
        states = self.gated_states()
        vectors = [
            states[number].vector(kind, self.layers[number]) for number, kind in self._vectors()
        ]
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
        self.gates.aim(amount, 1 - self.excess / self._full(self._costs))

    @override
    def scores(self) -> list[Scores]:
        return [
            Scores(
                heads=gates[HEADS].cpu(),
                query_key=torch.zeros(layer.heads, layer.head_size),
                value=torch.zeros(layer.heads, layer.head_size),
                neurons=gates[NEURONS].cpu(),
                layer=gates[LAYERS][0].cpu(),
            )
            for layer, gates in zip(
                self.layers, self._by_layer(self.gates.log_alpha()), strict=True
            )
        ]

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
        kinds = [kind for kind in _KINDS if kind in self.granularity]
        return [
            (number, kind)
            for number, layer in enumerate(self.layers)
            for kind in kinds
            if kind != NEURONS or layer.neurons
        ]

    def _by_layer(
        self, vectors: Sequence[Float[Tensor, "_"]]
    ) -> list[dict[str, Float[Tensor, "_"]]]:
        """Sort vectors of gates by layer and kind, with ones for kinds that have no gates."""
        states = self.gated_states()
        found = [{kind: torch.ones_like(state.gate(kind)) for kind in _KINDS} for state in states]
        for (number, kind), vector in zip(self._vectors(), vectors, strict=True):
            found[number][kind] = vector
        return found

    def _expected_size(self, probabilities: Sequence[Float[Tensor, "_"]]) -> Float[Tensor, ""]:
        """Return the expected size, as a fraction of the size of all layers."""
        sizes = [
            gates[LAYERS]
            * (
                gates[HEADS].sum() * (layer.head_size * cost.head_dimension)
                + gates[NEURONS].sum() * cost.neuron
                + cost.rest
            )
            for layer, cost, gates in zip(
                self.layers, self._costs, self._by_layer(probabilities), strict=True
            )
        ]
        return torch.cat(sizes).sum() / self._full(self._costs)

    def _fold_gates(self) -> None:
        if self.gates.learning:
            self.gates.end()
            for layer, state in zip(self.layers, self.gated_states(), strict=True):
                state.fold(layer)


def _gated(inputs: tuple[Tensor], gate: Tensor) -> tuple[Tensor] | None:
    """Multiply by gates, unless the layer was cut: then they have been multiplied into it."""
    (states,) = inputs
    return (states * gate.to(states.dtype),) if states.shape[-1] == len(gate) else None
