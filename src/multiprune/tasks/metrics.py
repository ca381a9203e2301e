"""Metrics of whole evaluation sets: ``metric(predictions, labels) -> float``.

Predictions and labels have shape ``(examples,)``, or ``(examples, labels)`` of 0 and 1 for
multi-label tasks, where F1 pools (micro) or averages (macro) over the labels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torchmetrics.functional import classification, pearson_corrcoef, spearman_corrcoef

if TYPE_CHECKING:
    from typing import Literal

    from torch import Tensor

# Of a larger one, no number of 32 bits holds the exponential.
_LARGEST_EXPONENT = 88.0


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the share of examples (of tokens, in tagging) whose labels are all right."""
    right = predictions == labels
    return float((right if right.dim() == 1 else right.all(-1)).float().mean())


def token_accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the share of hidden tokens that are predicted; answers are those of MaskedLanguage."""
    return float((predictions[:, 0] == labels[:, 0]).float().mean())


def token_loss(predictions: Tensor, labels: Tensor) -> float:  # noqa: ARG001
    """Return the mean negative log-probability of the hidden tokens, in nats."""
    return float(predictions[:, 1].double().mean())


def perplexity(predictions: Tensor, labels: Tensor) -> float:
    """Return the exponential of ``token_loss``: among how many tokens the model is undecided."""
    return math.exp(min(token_loss(predictions, labels), _LARGEST_EXPONENT))


def f1(predictions: Tensor, labels: Tensor) -> float:
    """Return the F1 of class 1 of a binary task."""
    return float(classification.binary_f1_score(predictions, labels))


def macro_f1(predictions: Tensor, labels: Tensor) -> float:
    """Return the mean F1 over the classes that occur."""
    return _averaged_f1(predictions, labels, "macro")


def micro_f1(predictions: Tensor, labels: Tensor) -> float:
    """Return the F1 of all decisions pooled."""
    return _averaged_f1(predictions, labels, "micro")


def matthews_correlation(predictions: Tensor, labels: Tensor) -> float:
    """Return Matthews' correlation coefficient, 0 if predictions or labels are of one class."""
    classes = _classes(predictions, labels)
    return _defined(predictions, labels) and float(
        classification.multiclass_matthews_corrcoef(predictions, labels, classes)
    )


def pearson(predictions: Tensor, labels: Tensor) -> float:
    """Return Pearson's correlation, 0 for constant predictions, of which it is undefined."""
    return _defined(predictions, labels) and float(
        pearson_corrcoef(predictions.double(), labels.double())
    )


def spearman(predictions: Tensor, labels: Tensor) -> float:
    """Return Spearman's rank correlation, 0 for constant predictions, of which it is undefined."""
    return _defined(predictions, labels) and float(
        spearman_corrcoef(predictions.double(), labels.double())
    )


def _defined(*values: Tensor) -> float:
    return float(all(one.max() > one.min() for one in values))


def _classes(predictions: Tensor, labels: Tensor) -> int:
    return max(2, int(max(predictions.max(), labels.max())) + 1)


def _averaged_f1(predictions: Tensor, labels: Tensor, average: Literal["macro", "micro"]) -> float:
    if labels.dim() == 2:
        count = labels.shape[1]
        return float(
            classification.multilabel_f1_score(predictions, labels, count, average=average)
        )
    classes = _classes(predictions, labels)
    return float(classification.multiclass_f1_score(predictions, labels, classes, average=average))
