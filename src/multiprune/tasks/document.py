"""A text split into words, with their character offsets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A sign by itself, or what begins and ends with letters or digits without white space between.
_WORD = re.compile(r"[^\w\s]|\w(?:\S*\w)?")


@dataclass(frozen=True)
class DocumentOfWords:
    """Words, and the characters of ``text`` where each of them starts and ends."""

    text: str
    words: list[str]
    starts: list[int]
    ends: list[int]

    @classmethod
    def of(cls, given: str | Sequence[str]) -> DocumentOfWords:
        """Split a text at white space and at signs around words; or take words as they are."""
        if isinstance(given, str):
            found = [*_WORD.finditer(given)]
            words = [one.group() for one in found]
            return cls(given, words, [one.start() for one in found], [one.end() for one in found])
        words = list(given)
        ends = [end - 1 for end in accumulate(len(word) + 1 for word in words)]
        starts = [end - len(word) for word, end in zip(words, ends, strict=True)]
        return cls(" ".join(words), words, starts, ends)
