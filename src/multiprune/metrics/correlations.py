"""Correlations of numbers; 0 where one side is constant."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from multiprune.metrics.metric import WholeMetric
from multiprune.metrics.predicted import Numbers

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class _Correlation(WholeMetric):
    """The correlation of outputs and labels, each put on the scale of a metric."""

    accepts = (Numbers,)

    @override
    def terms(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([outputs.double(), labels.double()], 1)

    @override
    def scores(self, terms: Tensor, weights: Tensor) -> Tensor:
        weights = weights.double()
        x, y = (self.scaled(side, weights) for side in terms.double().unbind(1))
        return correlation(x, y, weights)

    @abstractmethod
    def scaled(self, values: Tensor, weights: Tensor) -> Tensor:
        """Return centred values in each resample, shape (resamples, values)."""


@dataclass(frozen=True)
class Pearson(_Correlation):
    """Pearson's correlation.

    Sums of squares would give it, but not of numbers that differ little beside how large they are:
    of those, digits cancel unless the mean is subtracted first, which each resample has its own of.
    """

    @override
    def scaled(self, values: Tensor, weights: Tensor) -> Tensor:
        return centred(values, weights)


@dataclass(frozen=True)
class Spearman(_Correlation):
    """Spearman's rank correlation; equal values, repeated examples too, share the mean rank."""

    @override
    def scaled(self, values: Tensor, weights: Tensor) -> Tensor:
        return ranks(values, weights) - (weights.sum(1, keepdim=True) + 1) / 2


def centred(values: Tensor, weights: Tensor) -> Tensor:
    """Return values less their mean in each resample, (resamples, values); of a constant 0."""
    # A mean of equal numbers may differ from them in the last bit, but one of zeros is zero.
    largest = torch.where(weights > 0, values, -torch.inf).amax(1, keepdim=True)
    below = values - largest
    return below - (weights * below).sum(1, keepdim=True) / weights.sum(1, keepdim=True)


def ranks(values: Tensor, weights: Tensor) -> Tensor:
    """Return the ranks of values in each resample, from 1, of shape (resamples, values)."""
    _, which, counts = torch.unique(values, return_inverse=True, return_counts=True)
    equal = weights.new_zeros(len(weights), len(counts)).index_add_(1, which, weights)
    found = equal.cumsum(1) - (equal - 1) / 2
    return found[:, which]


def correlation(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Return the correlation of centred values in each resample, 0 where a side is constant."""
    covariance, *variances = ((weights * one).sum(1) for one in (x * y, x * x, y * y))
    scale = variances[0].sqrt() * variances[1].sqrt()
    found = covariance / torch.where(scale > 0, scale, 1)
    return torch.where(scale > 0, found.clamp(-1, 1), 0)
