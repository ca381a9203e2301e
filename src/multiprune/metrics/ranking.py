"""Ranking metrics of probabilities."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn import functional
from typing_extensions import override

from multiprune.metrics.metric import WholeMetric
from multiprune.metrics.predicted import Classes, LabelSets

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ranking(WholeMetric):
    """A metric of the order of examples by the probability of a class.

    Of two classes it is that of class 1, of more, or of sets of labels, the mean over all of which
    it is defined: each class against all others.
    """

    accepts = (Classes, LabelSets)
    #: What it is where it is defined of no class.
    undefined: ClassVar[float]

    @override
    def terms(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return probabilities, then whether they are of a label, of each class that counts."""
        if labels.dim() == 1:
            labels = functional.one_hot(labels.long(), outputs.shape[-1])
            if outputs.shape[-1] == 2:
                outputs, labels = outputs[:, 1:], labels[:, 1:]
        return torch.cat([outputs.double(), labels.double()], 1)

    @override
    def scores(self, terms: Tensor, weights: Tensor) -> Tensor:
        weights = weights.double()
        columns = zip(*(half.unbind(1) for half in terms.double().chunk(2, 1)), strict=True)
        found = []
        for likely, labelled in columns:
            _, group = torch.unique(likely, return_inverse=True)
            found.append(self.of_groups(*grouped(group, labelled, weights)))
        return torch.stack(found).nanmean(0).nan_to_num(self.undefined)

    @abstractmethod
    def of_groups(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the metric of one class in each resample; NaN where it is not defined.

        Args:
            positive: how many examples of the class each resample has, by rising probability;
                (resamples, different probabilities).
            negative: how many others.
        """


@dataclass(frozen=True)
class AUROC(Ranking):
    """The area under the receiver operating characteristic: how often the likelier is right.

    0.5, as of chance, if no class has both examples and others.
    """

    undefined: ClassVar[float] = 0.5

    @override
    def of_groups(self, positive: Tensor, negative: Tensor) -> Tensor:
        below = negative.cumsum(1) - negative / 2
        return (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))


@dataclass(frozen=True)
class AveragePrecision(Ranking):
    """The mean precision at each recall, without interpolation; 0 if no class has an example."""

    undefined: ClassVar[float] = 0.0

    @override
    def of_groups(self, positive: Tensor, negative: Tensor) -> Tensor:
        positive, negative = positive.flip(1), negative.flip(1)
        found = positive.cumsum(1)
        precision = found / (found + negative.cumsum(1)).clamp(min=1)
        return (positive * precision).sum(1) / positive.sum(1)


def grouped(group: Tensor, labelled: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Count the answers of each group that are labelled, and others, in each resample."""
    count = int(group.max()) + 1
    positive, negative = (
        weights.new_zeros(len(weights), count).index_add_(1, group, weights * one)
        for one in (labelled, 1 - labelled)
    )
    return positive, negative
