"""Gates as CoFi evaluates and constrains them (Xia, Zhong & Chen 2022, in their code)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from multiprune.pruning.hard_concrete import BETA, open_probability
from multiprune.pruning.layer_gates import LayerGates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from multiprune.pruning.layer_gates import GateVector

# By which an open gate is all but 1; Wang et al. (2020) chose it.
_SHARPNESS = 0.8


def open_gates(log_alpha: Float[Tensor, "*gates"]) -> Float[Tensor, "*gates"]:
    """Return what gates that are open are multiplied by in evaluation, in (0, 1)."""
    return torch.sigmoid(log_alpha * (_SHARPNESS / BETA))


def evaluation_gates(log_alpha: Float[Tensor, "gates"]) -> Float[Tensor, "gates"]:
    """Return gates of which as many are 0 as are expected to be, those of the least ``log_alpha``.

    The number of gates less the sum of their probabilities to be open, rounded, is closed
    (Wang et al. 2020, and the authors' ``_deterministic_z``).
    """
    closed = (len(log_alpha) - open_probability(log_alpha).sum()).round()
    rank = log_alpha.argsort(stable=True).argsort()
    return open_gates(log_alpha) * (rank >= closed)


class CofiGates(LayerGates):
    """Gates of which the target of the expected size begins at the whole, whatever they expect."""

    @override
    def put_into(
        self,
        module: nn.Module,
        vectors: Sequence[GateVector],
        expected_size: Callable[[Sequence[Tensor]], Tensor],
    ) -> None:
        super().put_into(module, vectors, expected_size)
        self._first_size = 1.0

    @override
    @torch.no_grad()
    def estimated(self) -> list[Float[Tensor, "_"]]:
        return [evaluation_gates(one) for one in self.log_alpha()]

    @torch.no_grad()
    def show_open(self) -> None:
        """Let all gates be open in evaluation, for masks say what is closed."""
        for vector, log_alpha in zip(self._vectors, self.log_alpha(), strict=True):
            vector.show(vector.training, open_gates(log_alpha))
