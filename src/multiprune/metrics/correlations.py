"""Correlations of numbers, 0 where a side is constant, of which there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from multiprune.metrics.metric import WholeMetric
from multiprune.metrics.outputs import Numbers

if TYPE_CHECKING:
    from torch import Tensor

# What is left of the variance of a constant, beside its square, is rounding.
_ROUNDING = 1e-10


@dataclass(frozen=True)
class Pearson(WholeMetric):
    """Pearson's correlation.

    Sums of squares would give it, but not of numbers that differ little beside how large they are:
    of those, digits cancel that the mean of all examples has to be known for.
    """

    accepts = (Numbers,)

    @override
    def terms(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([outputs.double(), labels.double()], 1)

    @override
    def scores(self, terms: Tensor, weights: Tensor) -> Tensor:
        x, y = (standardised(one) for one in terms.double().unbind(1))
        moments = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], 1)
        count, x, y, xx, yy, xy = (weights.double() @ moments).unbind(1)
        variances = [square * count - one**2 for one, square in ((x, xx), (y, yy))]
        variances = [
            torch.where(variance < _ROUNDING * square * count, 0, variance)
            for variance, square in zip(variances, (xx, yy), strict=True)
        ]
        return correlation(xy * count - x * y, *variances)


@dataclass(frozen=True)
class Spearman(WholeMetric):
    """Spearman's rank correlation; equal values, repeated examples too, share the mean rank."""

    accepts = (Numbers,)

    @override
    def terms(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([outputs.double(), labels.double()], 1)

    @override
    def scores(self, terms: Tensor, weights: Tensor) -> Tensor:
        weights = weights.double()
        middle = (weights.sum(1, keepdim=True) + 1) / 2
        x, y = (ranks(one, weights) - middle for one in terms.unbind(1))
        return correlation(*((weights * one).sum(1) for one in (x * y, x * x, y * y)))


def standardised(values: Tensor) -> Tensor:
    """Return values with mean 0 and standard deviation 1, or of a constant 0."""
    if values.min() == values.max():
        return torch.zeros_like(values)
    centred = values - values.mean()
    return centred / centred.square().mean().sqrt()


def ranks(values: Tensor, weights: Tensor) -> Tensor:
    """Return the ranks of values in each resample, from 1, of shape (resamples, values)."""
    _, which, counts = torch.unique(values, return_inverse=True, return_counts=True)
    equal = weights.new_zeros(len(weights), len(counts)).index_add_(1, which, weights)
    found = equal.cumsum(1) - (equal - 1) / 2
    return found[:, which]


def correlation(covariance: Tensor, *variances: Tensor) -> Tensor:
    """Return covariances divided by both standard deviations, 0 where one of those is 0."""
    scale = variances[0].sqrt() * variances[1].sqrt()
    found = covariance / torch.where(scale > 0, scale, 1)
    return torch.where(scale > 0, found.clamp(-1, 1), 0)
