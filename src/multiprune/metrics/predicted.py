"""Kinds of predictions, and the form in which metrics receive them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override


@dataclass(frozen=True)
class Predicted:
    """What a task predicts."""

    plural: ClassVar[str]

    def __str__(self) -> str:
        return self.plural


@dataclass(frozen=True)
class Classes(Predicted):
    """One of ``count`` classes: probabilities (answers, count), and labels (answers,)."""

    count: int

    plural: ClassVar[str] = "classes"

    @override
    def __str__(self) -> str:
        return f"one of {self.count} classes"


@dataclass(frozen=True)
class LabelSets(Predicted):
    """Any of ``count`` labels: probabilities (answers, count), and 0 or 1 for each."""

    count: int

    plural: ClassVar[str] = "sets of labels"

    @override
    def __str__(self) -> str:
        return f"any of {self.count} labels"


@dataclass(frozen=True)
class Numbers(Predicted):
    """A number: values and labels (answers,)."""

    plural: ClassVar[str] = "numbers"


@dataclass(frozen=True)
class NamedSpans(Predicted):
    """Spans of words: for each example a set of (kind, first word, word after the last)."""

    plural: ClassVar[str] = "named spans"


@dataclass(frozen=True)
class AnswerTexts(Predicted):
    """A text for each question, and all texts that are right; both normalised."""

    plural: ClassVar[str] = "answers in words"


@dataclass(frozen=True)
class HiddenTokens(Predicted):
    """The token predicted and the loss, (answers, 2); of labels, the right token comes first."""

    plural: ClassVar[str] = "hidden tokens"
