"""Per-example terms of a metric, and the metric of resampled examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from multiprune.metrics.metric import SumMetric

if TYPE_CHECKING:
    from multiprune.metrics.catalogue import Known

#: Takes how often each resample has each unit, (resamples, units), and returns the metric of each.
Resampled = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MetricTerms:
    """What is known of the examples of a set, so that a metric can be resampled.

    Attributes:
        terms: (answers, terms) as the metric has them, or their sums by example.
        places: (answers,), the number of the example that each is of, from 0.
        languages: (examples,), a number for each language that there is, from 0. The score is the
            mean over languages.
        units: (examples,), a number from 0 for what is resampled: examples that say the same in
            several languages are one.
    """

    terms: Tensor
    places: Tensor
    languages: Tensor
    units: Tensor

    def __post_init__(self) -> None:
        if len(self.terms) != len(self.places):
            raise ValueError(f"{len(self.terms)} terms are of {len(self.places)} answers")
        check_numbers(self.places, self.languages, self.units)


@dataclass(frozen=True)
class MetricDraws:
    """The scores of a metric that nobody else can compute, on the resamples that a report draws.

    Attributes:
        draws: the score of all examples, then that of each resample.
        languages: as in ``MetricTerms``.
        units: likewise.
    """

    draws: Tensor
    languages: Tensor
    units: Tensor

    def __post_init__(self) -> None:
        check_numbers(self.units, self.languages, self.units)


def check_numbers(places: Tensor, languages: Tensor, units: Tensor) -> None:
    """Raise a ValueError unless all are numbers from 0 of so many examples: a file may be wrong."""
    count = len(units)
    for numbers in (places, languages, units):
        if ((numbers < 0) | (numbers >= count)).any() or len(languages) != count:
            raise ValueError(f"there are numbers of more than {count} examples")


def terms_of(
    metric: Known, outputs: object, labels: object, places: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Return the terms of answers and the places of their examples; sums are those of examples.

    Args:
        metric: whose terms they are.
        outputs: of all answers.
        labels: of all answers.
        places: the number of the example that each answer is of.
        count: how many examples there are.
    """
    places = places.cpu()
    if not isinstance(metric, SumMetric):
        return metric.terms(outputs, labels).cpu(), places
    found: Tensor | None = None
    for block, sums in metric.blocks(outputs, labels):
        if found is None:
            found = torch.zeros(count, sums.shape[1], dtype=torch.double)
        found.index_add_(0, places[block], sums.cpu())
    assert found is not None
    return found, torch.arange(count)


def resampled(metric: Known, known: MetricTerms) -> Resampled:
    """Return a metric as a function of weights of units: its mean over languages.

    Languages of which a resample has no example do not count.
    """
    units, languages = known.units[known.places], known.languages[known.places]
    of_language = [
        (languages == number).nonzero()[:, 0] for number in sorted({*languages.tolist()})
    ]
    parts = [(known.terms[mine], units[mine]) for mine in of_language]

    def scores(weights: Tensor) -> Tensor:
        found, present = [], []
        for terms, mine in parts:
            drawn = weights[:, mine]
            found.append(metric.scores(terms, drawn))
            present.append(drawn.sum(1) > 0)
        is_there = torch.stack(present)
        return torch.where(is_there, torch.stack(found), 0).sum(0) / is_there.sum(0)

    return scores
