"""Metrics of probabilities that are sums over examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.metrics.metric import SumMetric
from multiprune.metrics.predicted import Classes, LabelSets, Predicted

if TYPE_CHECKING:
    from torch import Tensor

# No probability counts as smaller: the loss of a label that is said to be impossible is finite.
_SMALLEST = torch.finfo(torch.double).eps


@dataclass(frozen=True)
class LogLoss(SumMetric):
    """The mean negative log-probability of the label, in nats; of sets, of each single decision."""

    accepts = (Classes, LabelSets)

    @property
    @override
    def lower_is_better(self) -> bool:
        return True

    @override
    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        likely = outputs.double()
        if labels.dim() == 1:
            found = likely.gather(1, labels[:, None].long())
        else:
            found = torch.where(labels > 0, likely, 1 - likely)
        loss = -found.clamp(min=_SMALLEST).log().mean(1)
        return torch.stack([loss, torch.ones_like(loss)], 1)


@dataclass(frozen=True)
class ExpectedCalibrationError(SumMetric):
    """How far the probability of the likeliest class is from how often that is right.

    Answers are put into bins of equal width by that probability; the mean over answers of how far
    both means of their bin are apart (Guo et al. 2017, equation 3).

    Attributes:
        bins: how many there are.
    """

    bins: int = 15

    accepts = (Classes,)

    @property
    @override
    def lower_is_better(self) -> bool:
        return True

    def __post_init__(self) -> None:
        check_number("bins", self.bins, at_least=1, whole=True)

    @override
    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        confidence, predicted = outputs.double().max(-1)
        excess = confidence - (predicted == labels).double()
        which = ((confidence * self.bins).ceil().long() - 1).clamp(0, self.bins - 1)
        by_bin = functional.one_hot(which, self.bins) * excess[:, None]
        return torch.cat([by_bin, torch.ones_like(excess)[:, None]], 1)

    @override
    def formula(self, sums: Tensor) -> Tensor:
        return sums[..., :-1].abs().sum(-1) / sums[..., -1].clamp(min=1)


@dataclass(frozen=True)
class RecallAtK(SumMetric):
    """How many of the labels are among the ``k`` likeliest: a mean over examples with labels.

    Of equally likely classes the first comes first.
    """

    k: int

    accepts = (Classes, LabelSets)

    def __post_init__(self) -> None:
        check_number("k", self.k, at_least=1, whole=True)

    @override
    def check(self, output: Predicted) -> None:
        super().check(output)
        if isinstance(output, Classes | LabelSets) and self.k > output.count:
            raise ValueError(f"k is {self.k}, but the task predicts {output}")

    @override
    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        if labels.dim() == 1:
            labels = functional.one_hot(labels.long(), outputs.shape[-1])
        order = outputs.argsort(dim=-1, descending=True, stable=True)
        found = labels.gather(1, order[:, : self.k]).sum(1).double()
        present = labels.sum(1).double()
        return torch.stack([found / present.clamp(min=1), (present > 0).double()], 1)
