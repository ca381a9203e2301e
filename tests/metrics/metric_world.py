"""Answers of models that are right more often than not, for the tests of metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from multiprune.metrics.terms import MetricTerms, resampled, terms_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.metrics.catalogue import Known


def certain(classes: Sequence[int] | Tensor, count: int | None = None) -> Tensor:
    """Return probabilities of 1 for these classes."""
    classes = torch.as_tensor(classes)
    return functional.one_hot(classes, count or max(2, int(classes.max()) + 1)).double()


def classes(count: int, examples: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return probabilities of ``count`` classes, and labels of which all occur."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % count
    logits = torch.randn(examples, count, generator=generator, dtype=torch.double)
    return (logits + 1.5 * functional.one_hot(labels, count)).softmax(1), labels


def label_sets(count: int, examples: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return probabilities of ``count`` labels by themselves, and sets of labels, some empty."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(examples, count, generator=generator) < 0.3).long()
    logits = torch.randn(examples, count, generator=generator, dtype=torch.double)
    return (logits + labels - 0.5).sigmoid(), labels


def numbers(examples: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return numbers in steps of a half, so that some are equal."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.randn(examples, generator=generator) * 4).round() / 2
    noise = torch.randn(examples, generator=generator)
    return ((labels + noise) * 2).round() / 2, labels


def resampled_scores(
    metric: Known, outputs: Any, labels: Any, weights: Tensor, examples: Tensor | None = None
) -> list[float]:
    """Return the metric on resamples; ``examples`` has the example of each answer."""
    places = torch.arange(len(labels)) if examples is None else examples
    count = int(places.max()) + 1
    terms, places = terms_of(metric, outputs, labels, places, count)
    known = MetricTerms(terms, places, torch.zeros(count).long(), torch.arange(count))
    scores: list[float] = resampled(metric, known)(weights).tolist()
    return scores
