"""Exact match and F1 of extractive answers, averaged over questions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from multiprune.metrics.metric import SumMetric
from multiprune.metrics.predicted import AnswerTexts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class ExactMatch(SumMetric):
    """The share of answers that are one of the right ones."""

    accepts = (AnswerTexts,)

    @override
    def sums(self, outputs: Sequence[str], labels: Sequence[Sequence[str]]) -> Tensor:
        pairs = zip(outputs, labels, strict=True)
        return _each([float(answer in right) for answer, right in pairs])


@dataclass(frozen=True)
class AnswerF1(SumMetric):
    """The mean over questions of the F1 of words, the highest over the right answers."""

    accepts = (AnswerTexts,)

    @override
    def sums(self, outputs: Sequence[str], labels: Sequence[Sequence[str]]) -> Tensor:
        pairs = zip(outputs, labels, strict=True)
        return _each([max(word_f1(answer, text) for text in right) for answer, right in pairs])


def word_f1(answer: str, right: str) -> float:
    """Return 2 common / (words + words), where a word is common as often as both have it."""
    found, expected = answer.split(), right.split()
    common = sum((Counter(found) & Counter(expected)).values())
    return 2 * common / (len(found) + len(expected)) if common else 0.0


def _each(values: Sequence[float]) -> Tensor:
    """Return what a mean is made of."""
    found = torch.tensor(values, dtype=torch.double)
    return torch.stack([found, torch.ones_like(found)], 1)
