"""Deterministic values of random gates, for evaluation and for the final model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from multiprune.pruning.hard_concrete import BETA, estimated_gates, open_probability

if TYPE_CHECKING:
    from collections.abc import Sequence

# "magical_number" in the authors' code.
_SHARPNESS = 0.8


class EvaluationGates(ABC):
    """A rule for gates without noise."""

    @abstractmethod
    def estimated(
        self, log_alpha: Float[Tensor, "gates"], counts: Sequence[int]
    ) -> Float[Tensor, "gates"]:
        """Return the gates to evaluate with while they learn, of vectors of ``counts`` in a row."""

    @abstractmethod
    def folded(self, log_alpha: Float[Tensor, "*gates"]) -> Float[Tensor, "*gates"]:
        """Return what gates that are kept are multiplied into weights with: above 0, all of them.

        A budget decides which are kept, so there may be some among them that are 0 in evaluation.
        """


class LouizosGates(EvaluationGates):
    """``clamp(1.2 sigmoid(log_alpha) - 0.1, 0, 1)`` (Louizos et al. (2018), equation 13).

    That is 0 for ``log_alpha`` below -2.40: where such a gate is kept, FLOP's value stands in.
    """

    @override
    def estimated(
        self, log_alpha: Float[Tensor, "gates"], counts: Sequence[int]
    ) -> Float[Tensor, "gates"]:
        return estimated_gates(log_alpha)

    @override
    def folded(self, log_alpha: Float[Tensor, "*gates"]) -> Float[Tensor, "*gates"]:
        gates = estimated_gates(log_alpha)
        return torch.where(gates > 0, gates, soft_gates(log_alpha))


class FlopGates(EvaluationGates):
    """``sigmoid(0.8 log_alpha / beta)``, and 0 for as many of each vector as are expected closed.

    As in the authors' code for Wang, Wohlwend & Lei (2020), asappresearch/flop (bdfc184),
    flop/hardconcrete.py: in each vector ``round(n - E[open])`` gates, the smallest, are closed.
    """

    @override
    def estimated(
        self, log_alpha: Float[Tensor, "gates"], counts: Sequence[int]
    ) -> Float[Tensor, "gates"]:
        return torch.cat([_closed_as_expected(one) for one in torch.split(log_alpha, list(counts))])

    @override
    def folded(self, log_alpha: Float[Tensor, "*gates"]) -> Float[Tensor, "*gates"]:
        return soft_gates(log_alpha)


def soft_gates(log_alpha: Float[Tensor, "*gates"]) -> Float[Tensor, "*gates"]:
    """Return ``sigmoid(0.8 log_alpha / beta)``, which is never 0."""
    return torch.sigmoid(_SHARPNESS / BETA * log_alpha)


def _closed_as_expected(log_alpha: Float[Tensor, "gates"]) -> Float[Tensor, "gates"]:
    closed = torch.round((1 - open_probability(log_alpha)).sum())
    places = log_alpha.argsort(stable=True).argsort()
    return torch.where(places < closed, 0, soft_gates(log_alpha))
