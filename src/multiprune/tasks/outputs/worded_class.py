"""Classification output of a text-to-text model, by label words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from multiprune.tasks.outputs.one_class import OneClass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Wording:
    """What a text-to-text model reads and answers in one task.

    Attributes:
        template: with the text columns in braces.
        words: of every label.
        tokens: of the words of every label, the end of the sequence last.
    """

    template: str
    words: Sequence[str]
    tokens: Sequence[Sequence[int]]

    def filled(self, texts: Mapping[str, str]) -> str:
        """Return the template with a text in place of each column."""
        return self.template.format_map(texts)


@dataclass(frozen=True)
class WordedClass(OneClass):
    """One of ``labels``: logits are log-probabilities of whole words, sums over their tokens."""

    wording: Wording

    @property
    @override
    def described(self) -> Mapping[str, Any]:
        words = {"template": self.wording.template, "words": [*self.wording.words]}
        return {**super().described, **words}

    @property
    @override
    def label_space(self) -> Mapping[str, Any]:
        return {**super().label_space, **self.described}

    @property
    @override
    def meaning(self) -> str:
        return ", ".join(self.wording.words)
