"""Metrics of masked language modelling, over all masked tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from multiprune.metrics.metric import SumMetric, ratio
from multiprune.metrics.predicted import HiddenTokens

if TYPE_CHECKING:
    from torch import Tensor

# Of a larger one, no number of 32 bits holds the exponential.
_LARGEST_EXPONENT = 88.0


@dataclass(frozen=True)
class TokenAccuracy(SumMetric):
    """The share of hidden tokens that are predicted."""

    accepts = (HiddenTokens,)

    @override
    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        right = (outputs[:, 0] == labels[:, 0]).double()
        return torch.stack([right, torch.ones_like(right)], 1)


@dataclass(frozen=True)
class TokenLoss(SumMetric):
    """The mean negative log-probability of the hidden tokens, in nats."""

    accepts = (HiddenTokens,)

    @property
    @override
    def lower_is_better(self) -> bool:
        return True

    @override
    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        loss = outputs[:, 1].double()
        return torch.stack([loss, torch.ones_like(loss)], 1)


@dataclass(frozen=True)
class Perplexity(TokenLoss):
    """The exponential of ``TokenLoss``: among how many tokens the model is undecided."""

    @override
    def formula(self, sums: Tensor) -> Tensor:
        return ratio(sums).clamp(max=_LARGEST_EXPONENT).exp()
