"""What a shipped model answers to one text, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class PredictedLabel:
    """The likeliest of several labels, and the probability of each."""

    label: str
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class PredictedLabels:
    """The labels that are likelier than not, and the probability of each that there is."""

    labels: Sequence[str]
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class PredictedNumber:
    """A number, in the units of the task's labels."""

    value: float


@dataclass(frozen=True)
class PredictedSpan:
    """A part of a text, ``text[start:end]``, and what it is."""

    label: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class PredictedTags:
    """A tag for each word.

    Attributes:
        words: those that were given, or that a text was split into.
        tags: of the words; of one that was not read ``O``, or None if that is no label.
        probabilities: of the tags; 0 for words that were not read.
        spans: what tags with ``B-`` and ``I-`` mark, by characters of the text, or of the words
            with a space between them where words were given.
    """

    words: Sequence[str]
    tags: Sequence[str | None]
    probabilities: Sequence[float]
    spans: Sequence[PredictedSpan]


@dataclass(frozen=True)
class PredictedAnswer:
    """The part ``context[start:end]`` that answers a question; ``score`` is a sum of logits."""

    text: str
    start: int
    end: int
    score: float


Prediction = PredictedLabel | PredictedLabels | PredictedNumber | PredictedTags | PredictedAnswer
