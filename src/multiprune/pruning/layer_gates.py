"""Gates in the layers of a model, and their updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from multiprune.pruning.gates import Gates
from multiprune.pruning.hard_concrete import gate_gradient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn


@dataclass(frozen=True)
class GateVector:
    """Gates in a module: buffers ``<prefix>gate`` to train with and ``<prefix>evaluation_gate``.

    They multiply what linear layers read, or, as ``gates_outputs`` says, what these return: bias
    included, ``y = z (W x + b)`` has ``sum W dL/dW + sum b dL/db = z dL/dz``. Likewise each gate is
    on an entry of what norms return. Those of ``starts_open`` start all but surely open, whatever
    the drop rate.
    """

    module: nn.Module
    prefix: str
    linear_layers: Sequence[nn.Linear]
    gates_outputs: bool = False
    starts_open: bool = False
    norms: Sequence[nn.LayerNorm] = ()

    @property
    def training(self) -> Tensor:
        """The gates to train with, as they are now."""
        return self.module.get_buffer(f"{self.prefix}gate")

    def show(self, training: Float[Tensor, "gates"], evaluation: Float[Tensor, "gates"]) -> None:
        """Take over values."""
        self.training.copy_(training)
        self.module.get_buffer(f"{self.prefix}evaluation_gate").copy_(evaluation)

    def gradient(self) -> Float[Tensor, "gates"]:
        """Return the loss's gradient with respect to the gates, as backward has left it."""
        gates = self.training
        found = torch.zeros_like(gates)
        for parameter, rows in self._parameters():
            if parameter.grad is not None:
                gradient = parameter.grad.view(rows, -1)
                found += gate_gradient(parameter.view(rows, -1), gradient, gates)
        return found

    def _parameters(self) -> Iterator[tuple[Tensor, int]]:
        """Yield what the gates multiply, and in how many rows each has a column."""
        for linear in self.linear_layers:
            yield linear.weight, len(linear.weight)
            if self.gates_outputs and linear.bias is not None:
                yield linear.bias, len(linear.bias)
        for norm in self.norms:
            yield norm.weight, 1
            yield norm.bias, 1


class LayerGates(Gates):
    """Gates of which each vector lies in a layer."""

    def put_into(
        self,
        module: nn.Module,
        vectors: Sequence[GateVector],
        expected_size: Callable[[Sequence[Tensor]], Tensor],
    ) -> None:
        """Register the gates of ``vectors`` in ``module``, as ``add_to`` does."""
        self._vectors = list(vectors)
        # Of the loss with respect to the gates, from before the optimizer's step to after it.
        self._gradients: list[Tensor] = []
        self._scale = 1.0
        self.add_to(
            module,
            [len(one.training) for one in vectors],
            expected_size,
            starting_open=[one.starts_open for one in vectors],
        )

    @override
    def aim(self, amount: float, size: float, first: float | None = None) -> None:
        super().aim(amount, size, first)
        if not self.learning:
            self.start()
            self._show()

    @torch.no_grad()
    def read_gradients(self, scale: float) -> None:
        """Gradients are complete: read those of the gates, if they learn."""
        self._scale = scale
        if self.learning:
            self._gradients = [one.gradient() for one in self._vectors]

    def take_step(self) -> None:
        """The optimizer has moved: move the gates, if they learn, and draw those of the next."""
        if self.learning:
            gates = [one.training for one in self._vectors]
            self.update(gates, self._gradients, self._scale)
            self._show()

    @torch.no_grad()
    def end(self) -> None:
        """Stop, and show what gates that are kept are multiplied into weights with."""
        self.stop()
        for vector, gates in zip(self._vectors, self.folded(), strict=True):
            vector.show(gates, gates)

    @torch.no_grad()
    def _show(self) -> None:
        drawn = zip(self._vectors, self.sampled(), self.estimated(), strict=True)
        for vector, sampled, estimated in drawn:
            vector.show(sampled, estimated)
