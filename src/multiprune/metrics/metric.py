"""The interface of metrics: scores, resampled scores, and sums over processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

    from multiprune.metrics.predicted import Predicted

# Numbers that the terms of some answers are made of at a time.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Metric(ABC):
    """Compares what a model answers to a whole evaluation set with the labels.

    Settings of a metric are fields of its dataclass. Outputs and labels have the form that the
    ``Predicted`` of the task says. Everything is computed in double precision: of a million
    examples, single precision is off in the fourth digit of a correlation.

    Attributes:
        accepts: what the metric can be computed of.
    """

    accepts: ClassVar[tuple[type[Predicted], ...]]

    @property
    def name(self) -> str:
        """What a person calls it."""
        return type(self).__name__

    @property
    def lower_is_better(self) -> bool:
        """Whether less of it is better, so that it cannot be the score of a task."""
        return False

    def check(self, output: Predicted) -> None:
        """Raise a ValueError unless the metric can be computed of what a task predicts."""
        if not isinstance(output, self.accepts):
            known = " or ".join(one.plural for one in self.accepts)
            raise ValueError(f"{self.name} is for {known}, but the task predicts {output}")

    @abstractmethod
    def __call__(self, outputs: Any, labels: Any) -> float:
        """Return the metric of all examples."""


@dataclass(frozen=True)
class SumMetric(Metric):
    """A function of sums over examples.

    Sums of parts of the examples, such as those of processes, add up to the sums of all.
    """

    @abstractmethod
    def sums(self, outputs: Any, labels: Any) -> Tensor:
        """Return what each answer adds to the sums: float64, shape (answers, sums)."""

    def formula(self, sums: Tensor) -> Tensor:
        """Return the metric from sums over examples: shape (..., sums) to (...).

        Unless it is another, it is the first of two sums divided by the second.
        """
        return ratio(sums)

    def blocks(self, outputs: Any, labels: Any) -> Iterator[tuple[slice, Tensor]]:
        """Yield ``sums`` of some answers at a time, and which those are."""
        width = outputs[0].numel() if isinstance(outputs, Tensor) and len(outputs) else 1
        size = max(1, _BLOCK // width)
        for start in range(0, max(1, len(labels)), size):
            block = slice(start, start + size)
            yield block, self.sums(outputs[block], labels[block])

    def total(self, outputs: Any, labels: Any) -> Tensor:
        """Return the sums over all answers."""
        return torch.stack([sums.sum(0) for _, sums in self.blocks(outputs, labels)]).sum(0)

    @override
    def __call__(self, outputs: Any, labels: Any) -> float:
        return float(self.formula(self.total(outputs, labels)))

    def terms(self, outputs: Any, labels: Any) -> Tensor:
        """Return what has to be known of each answer to resample, shape (answers, terms)."""
        return self.sums(outputs, labels)

    def scores(self, terms: Tensor, weights: Tensor) -> Tensor:
        """Return the metric of each resample.

        Args:
            terms: of answers, or sums of those of an example.
            weights: how often each resample has each of them, (resamples, answers).
        """
        return self.formula(weights.double() @ terms.double())


@dataclass(frozen=True)
class WholeMetric(Metric):
    """A function of all examples that no sums over them give, such as one of ranks.

    Like ``SumMetric`` it says what has to be known of each answer, and what comes of any resample.
    """

    @abstractmethod
    def terms(self, outputs: Any, labels: Any) -> Tensor:
        """Return what has to be known of each answer: float64, shape (answers, terms)."""

    @abstractmethod
    def scores(self, terms: Tensor, weights: Tensor) -> Tensor:
        """Return the metric of each resample, which has each answer as often as ``weights`` say.

        Weights are of shape (resamples, answers); one of 2 is as good as two equal answers.
        """

    @override
    def __call__(self, outputs: Any, labels: Any) -> float:
        terms = self.terms(outputs, labels)
        return float(self.scores(terms, terms.new_ones(1, len(terms)))[0])


def ratio(sums: Tensor) -> Tensor:
    """Divide the first of two sums by the second, (..., 2) to (...); 0 where that is 0."""
    above, below = sums.unbind(-1)
    return torch.where(below > 0, above / torch.where(below > 0, below, 1), 0)
