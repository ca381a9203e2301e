"""Buffers of a layer with learned gates on heads, neurons and blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multiprune.models.architectures import VALUE
from multiprune.pruning.layer_gates import GateVector
from multiprune.pruning.layer_state import LayerState
from multiprune.pruning.removal import BLOCKS, HEADS, LAYERS, NEURONS

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from multiprune.models.structure import Layer

#: The kinds of gates, and of which granularity each is.
ATTENTION_BLOCK, FEED_FORWARD_BLOCK = "attention_block", "feed_forward_block"
GATE_KINDS = {
    HEADS: HEADS,
    NEURONS: NEURONS,
    ATTENTION_BLOCK: BLOCKS,
    FEED_FORWARD_BLOCK: BLOCKS,
    LAYERS: LAYERS,
}

#: What gates on the units of a block, and on the block, multiply: inputs or outputs of what reads.
_READS = {HEADS: VALUE, NEURONS: NEURONS, ATTENTION_BLOCK: VALUE, FEED_FORWARD_BLOCK: NEURONS}
_GATES = {VALUE: (HEADS, ATTENTION_BLOCK), NEURONS: (NEURONS, FEED_FORWARD_BLOCK)}


class GatedState(LayerState):
    """Also holds the gates of one layer, and multiplies by them.

    Gates of heads and neurons multiply what the last linear layers of the attention and of the
    feed-forward network read, those of the block and of the layer what they return. ``..._gate`` is
    for training, ``..._evaluation_gate`` for the rest.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.head_size = layer.head_size
        weight = layer.output_of(VALUE).weight
        for kind in GATE_KINDS:
            count = {HEADS: layer.heads, NEURONS: layer.neurons}.get(kind, 1)
            self.register_buffer(f"{kind}_gate", weight.new_ones(count))
            self.register_buffer(f"{kind}_evaluation_gate", weight.new_ones(count))

    def attach(self, layer: Layer) -> list[RemovableHandle]:
        """Put the gates into the forward pass of the layer."""
        gate = {
            VALUE: (self._gate_heads, self._gate_attention),
            NEURONS: (self._gate_neurons, self._gate_feed_forward),
        }
        handles = []
        for units, output in layer.outputs():
            inputs, outputs = gate[units]
            handles.append(output.register_forward_pre_hook(inputs))
            handles.append(output.register_forward_hook(outputs))
        return handles

    def vector(self, kind: str, layer: Layer) -> GateVector:
        """Return the gates of a kind, and the linear layers whose inputs or outputs they gate."""
        outputs = [one for units, one in layer.outputs() if _READS.get(kind, units) == units]
        gates_outputs, starts_open = kind not in (HEADS, NEURONS), kind != NEURONS
        return GateVector(self, f"{kind}_", outputs, gates_outputs, starts_open)

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
        """Multiply the gates to evaluate with into the weights, and leave gates of 1."""
        for units, output in layer.outputs():
            gates, whole = (self.gate(kind, training=False) for kind in _GATES[units])
            gates = gates.repeat_interleave(self.head_size) if units == VALUE else gates
            whole = whole * self.gate(LAYERS, training=False)
            output.weight.mul_(gates * whole)
            if output.bias is not None:
                output.bias.mul_(whole)
        for kind in GATE_KINDS:
            ones = torch.ones_like(self.gate(kind))
            self.set_gates(kind, ones, ones)

    def _gate_heads(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        gate = self.gate(HEADS, training=module.training)
        return _gated(inputs, gate[:, None].expand(-1, self.head_size).reshape(-1))

    def _gate_neurons(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        return _gated(inputs, self.gate(NEURONS, training=module.training))

    def _gate_attention(self, module: nn.Module, _: tuple[Tensor], output: Tensor) -> Tensor:
        return output * self._gate_output(ATTENTION_BLOCK, module.training).to(output.dtype)

    def _gate_feed_forward(self, module: nn.Module, _: tuple[Tensor], output: Tensor) -> Tensor:
        return output * self._gate_output(FEED_FORWARD_BLOCK, module.training).to(output.dtype)

    def _gate_output(self, kind: str, training: bool) -> Tensor:
        return self.gate(kind, training=training) * self.gate(LAYERS, training=training)


def _gated(inputs: tuple[Tensor], gate: Tensor) -> tuple[Tensor] | None:
    """Multiply by gates, unless the layer was cut: then they have been multiplied into it."""
    (states,) = inputs
    return (states * gate.to(states.dtype),) if states.shape[-1] == len(gate) else None
