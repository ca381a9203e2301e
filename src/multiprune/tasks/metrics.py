"""Metrics of whole evaluation sets: ``metric(predictions, labels) -> float``.

Predictions and labels have shape ``(examples,)``, or ``(examples, labels)`` of 0 and 1 for
multi-label tasks, where F1 pools (micro) or averages (macro) over the labels.

All are computed in double precision: of a million examples, single precision is off in the fourth
digit of a correlation.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

# Of a larger one, no number of 32 bits holds the exponential.
_LARGEST_EXPONENT = 88.0


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the share of examples (of tokens, in tagging) whose labels are all right."""
    right = predictions == labels
    return float((right if right.dim() == 1 else right.all(-1)).double().mean())


def token_accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the share of hidden tokens that are predicted; answers are those of MaskedLanguage."""
    return float((predictions[:, 0] == labels[:, 0]).double().mean())


def token_loss(predictions: Tensor, labels: Tensor) -> float:  # noqa: ARG001
    """Return the mean negative log-probability of the hidden tokens, in nats."""
    return float(predictions[:, 1].double().mean())


def perplexity(predictions: Tensor, labels: Tensor) -> float:
    """Return the exponential of ``token_loss``: among how many tokens the model is undecided."""
    return math.exp(min(token_loss(predictions, labels), _LARGEST_EXPONENT))


def f1(predictions: Tensor, labels: Tensor) -> float:
    """Return the F1 of class 1 of a binary task."""
    return float(_f1(*_counts(predictions.flatten(), labels.flatten()))[1])


def macro_f1(predictions: Tensor, labels: Tensor) -> float:
    """Return the mean F1 over the classes that occur, or over all labels of sets."""
    right, predicted, labelled = _counts(predictions, labels)
    occur = (predicted + labelled > 0) | (labels.dim() == 2)
    return float(_f1(right, predicted, labelled)[occur].mean())


def micro_f1(predictions: Tensor, labels: Tensor) -> float:
    """Return the F1 of all decisions pooled."""
    return float(_f1(*(one.sum() for one in _counts(predictions, labels))))


def matthews_correlation(predictions: Tensor, labels: Tensor) -> float:
    """Return Matthews' correlation coefficient, 0 if predictions or labels are of one class.

    Of several classes it is that of Gorodkin (2004), equation 8.
    """
    right, predicted, labelled = _counts(predictions.flatten(), labels.flatten())
    count = labelled.sum()
    covariance = count * right.sum() - predicted @ labelled
    variances = count**2 - predicted @ predicted, count**2 - labelled @ labelled
    return _correlation(covariance, *variances)


def pearson(predictions: Tensor, labels: Tensor) -> float:
    """Return Pearson's correlation, 0 for constant predictions, of which it is undefined."""
    # The mean of a constant is rounded, and leaves a variance.
    if any(one.min() == one.max() for one in (predictions, labels)):
        return 0.0
    x, y = (one.double() - one.double().mean() for one in (predictions, labels))
    return _correlation(x @ y, x @ x, y @ y)


def spearman(predictions: Tensor, labels: Tensor) -> float:
    """Return Spearman's rank correlation, 0 for constant predictions, of which it is undefined."""
    return pearson(_ranks(predictions), _ranks(labels))


def _counts(predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, of each class, answers that are right, predicted and labelled."""
    if labels.dim() == 2:
        return (
            (predictions * labels).double().sum(0),
            predictions.double().sum(0),
            labels.double().sum(0),
        )
    classes = max(2, int(max(predictions.max(), labels.max())) + 1)
    parts = (labels[predictions == labels], predictions, labels)
    right, predicted, labelled = (
        torch.bincount(one.long(), minlength=classes).double() for one in parts
    )
    return right, predicted, labelled


def _f1(right: Tensor, predicted: Tensor, labelled: Tensor) -> Tensor:
    """Return 2 right / (predicted + labelled), 0 of what does not occur."""
    return 2 * right / (predicted + labelled).clamp(min=1)


def _ranks(values: Tensor) -> Tensor:
    """Return ranks from 1, of which equal values share the mean one."""
    _, which, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0).double() - (counts.double() - 1) / 2
    return ranks[which]


def _correlation(covariance: Tensor, *variances: Tensor) -> float:
    """Return 0 where a side is constant, of which there is no correlation."""
    scale = float(variances[0].sqrt() * variances[1].sqrt())
    return max(-1.0, min(1.0, float(covariance) / scale)) if scale > 0 else 0.0
