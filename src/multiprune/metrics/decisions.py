"""Metrics of predicted classes and label sets.

F1 of class 1, of decisions pooled (micro), or averaged over classes or labels (macro).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from typing_extensions import override

from multiprune.metrics.metric import Metric, SumMetric, ratio
from multiprune.metrics.predicted import Classes, LabelSets, Predicted

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Accuracy(SumMetric):
    """The share of examples (of words, in tagging) whose labels are all right."""

    accepts = (Classes, LabelSets)

    @override
    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        right = decided(outputs, labels) == labels
        right = right if right.dim() == 1 else right.all(-1)
        return torch.stack([right, torch.ones_like(right)], 1).double()


@dataclass(frozen=True)
class F1(SumMetric):
    """The F1 of class 1 of two."""

    accepts = (Classes,)

    @override
    def check(self, output: Predicted) -> None:
        super().check(output)
        check_binary(self, output)

    @override
    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return counts(outputs, labels)

    @override
    def formula(self, sums: Tensor) -> Tensor:
        return f1(*by_class(sums))[..., 1]


@dataclass(frozen=True)
class MacroF1(SumMetric):
    """The mean F1 over the classes that occur, or over all labels of sets."""

    accepts = (Classes, LabelSets)

    @override
    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        # The last tells sets from classes.
        of_sets = outputs.new_full((len(outputs), 1), labels.dim() == 2, dtype=torch.double)
        return torch.cat([counts(outputs, labels), of_sets], 1)

    @override
    def formula(self, sums: Tensor) -> Tensor:
        right, predicted, labelled = by_class(sums[..., :-1])
        occur = (predicted + labelled > 0) | (sums[..., -1:] > 0)
        return f1(right, predicted, labelled).sum(-1) / occur.sum(-1).clamp(min=1)


@dataclass(frozen=True)
class MicroF1(SumMetric):
    """The F1 of all decisions pooled."""

    accepts = (Classes, LabelSets)

    @override
    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([one.sum(-1) for one in by_class(counts(outputs, labels))], -1)

    @override
    def formula(self, sums: Tensor) -> Tensor:
        return f1(*sums.unbind(-1))


@dataclass(frozen=True)
class MatthewsCorrelation(SumMetric):
    """Matthews' correlation coefficient, 0 if predictions or labels are of one class.

    Of several classes it is that of Gorodkin (2004), equation 8.
    """

    accepts = (Classes,)

    @override
    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return counts(outputs, labels)

    @override
    def formula(self, sums: Tensor) -> Tensor:
        right, predicted, labelled = by_class(sums)
        count = labelled.sum(-1)
        covariance = count * right.sum(-1) - (predicted * labelled).sum(-1)
        variances = [count**2 - one.square().sum(-1) for one in (predicted, labelled)]
        scale = variances[0].sqrt() * variances[1].sqrt()
        found = covariance / torch.where(scale > 0, scale, 1)
        return torch.where(scale > 0, found.clamp(-1, 1), 0)


def decided(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the likeliest classes, or for each label of a set whether it is likelier than not."""
    assert outputs.dim() == 2, "probabilities are needed, and not what they come to"
    return outputs.argmax(-1) if labels.dim() == 1 else (outputs > 0.5).long()


def counts(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return, for each class, whether an answer is right, predicted and labelled, one by one."""
    predicted = decided(outputs, labels)
    if labels.dim() == 1:
        predicted, labels = (
            functional.one_hot(one.long(), outputs.shape[-1]) for one in (predicted, labels)
        )
    return torch.stack([predicted * labels, predicted, labels], 1).flatten(1).double()


def by_class(sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return how many answers of each class are right, predicted and labelled, from ``counts``."""
    right, predicted, labelled = sums.chunk(3, -1)
    return right, predicted, labelled


def f1(right: Tensor, predicted: Tensor, labelled: Tensor) -> Tensor:
    """Return 2 right / (predicted + labelled), 0 of what does not occur."""
    return ratio(torch.stack([2 * right, predicted + labelled], -1))


def check_binary(metric: Metric, output: Predicted) -> None:
    """Raise a ValueError unless there are two classes."""
    if isinstance(output, Classes) and output.count != 2:
        raise ValueError(f"{metric.name} is for two classes, but the task predicts {output}")
