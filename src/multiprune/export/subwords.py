"""Subword dependencies of tokenizer models, for a reduced vocabulary that splits alike."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class SubwordModel(ABC):
    """A model of the ``tokenizers`` library, as the ``model`` part of a tokenizer's JSON states it.

    ``vocabulary`` holds the id of each token, ``unknown`` the id of the unknown token.
    """

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self.definition = definition
        self.vocabulary: dict[str, int] = definition["vocab"]
        self.unknown: int | None = self.vocabulary.get(definition.get("unk_token") or "")

    @abstractmethod
    def close(self, kept: set[int], *, characters: bool) -> set[int]:
        """Return ``kept`` with all it takes to split into these tokens just as before.

        With ``characters``, all others split at worst into the characters that the vocabulary has.
        """

    def found_in(self, unknown_word: str) -> set[int]:
        """Return the tokens that a word was split into until its rest turned out to be unknown."""
        del unknown_word
        return set()

    def restrict(self, numbers: Mapping[int, int]) -> dict[str, Any]:
        """Return the definition with the tokens whose ids are keys of ``numbers``, renumbered."""
        kept = {
            token: numbers[number] for token, number in self.vocabulary.items() if number in numbers
        }
        return {**self.definition, "vocab": kept}


class WordLevel(SubwordModel):
    """Whole words; a word that is not kept is unknown, for no characters can stand in for it."""

    @override
    def close(self, kept: set[int], *, characters: bool) -> set[int]:
        return kept


class WordPiece(SubwordModel):
    """The longest token first, from left to right; a word with a rest is unknown as a whole."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        super().__init__(definition)
        self.prefix: str = definition["continuing_subword_prefix"]

    @override
    def close(self, kept: set[int], *, characters: bool) -> set[int]:
        if not characters:
            return kept
        return kept | {
            number
            for token, number in self.vocabulary.items()
            if len(token.removeprefix(self.prefix)) == 1
        }

    @override
    def found_in(self, unknown_word: str) -> set[int]:
        # Without these tokens, shorter ones would match, and perhaps the rest then too.
        found: set[int] = set()
        rest = unknown_word
        while match := self._longest(rest, self.prefix if found else ""):
            length, number = match
            found.add(number)
            rest = rest[length:]
        return found

    def _longest(self, text: str, prefix: str) -> tuple[int, int] | None:
        for length in range(len(text), 0, -1):
            number = self.vocabulary.get(prefix + text[:length])
            if number is not None:
                return length, number
        return None


class Unigram(SubwordModel):
    """The most probable split; its vocabulary is a list of tokens with their log-probabilities."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        tokens = {token: number for number, (token, _) in enumerate(definition["vocab"])}
        super().__init__({**definition, "vocab": tokens})
        self.scored: list[tuple[str, float]] = definition["vocab"]
        self.unknown = definition["unk_id"]

    @override
    def close(self, kept: set[int], *, characters: bool) -> set[int]:
        # An unknown character costs 10 more than the least probable token, so that one stays.
        needed = kept | {min(range(len(self.scored)), key=lambda number: self.scored[number][1])}
        # Classes of `transformers` (XLM-R's, ALBERT's) state the id of the unknown token in code.
        if self.unknown is not None:
            needed |= set(range(self.unknown + 1))
        if characters:
            needed |= {number for token, number in self.vocabulary.items() if len(token) == 1}
        if self.definition["byte_fallback"]:
            needed |= _bytes(self.vocabulary)
        return needed

    @override
    def restrict(self, numbers: Mapping[int, int]) -> dict[str, Any]:
        kept = [entry for number, entry in enumerate(self.scored) if number in numbers]
        unknown = None if self.unknown is None else numbers[self.unknown]
        return {**self.definition, "vocab": kept, "unk_id": unknown}


class BytePairs(SubwordModel):
    """Byte-pair encoding: a word's characters, or bytes, merged pair by pair in order of rank.

    Its alphabet, what no merge makes, always stays: most such models have no unknown token, and
    would lose characters in silence.
    """

    def __init__(self, definition: Mapping[str, Any]) -> None:
        super().__init__(definition)
        self.prefix: str = definition["continuing_subword_prefix"] or ""
        self.pairs: list[tuple[str, str]] = [tuple(pair) for pair in definition["merges"]]
        self.ranks = {pair: rank for rank, pair in enumerate(self.pairs)}
        self.pairs_of: dict[str, list[tuple[str, str]]] = {}
        for pair in self.pairs:
            self.pairs_of.setdefault(self._merged(pair), []).append(pair)

    @override
    def close(self, kept: set[int], *, characters: bool) -> set[int]:
        needed = kept | {
            number for token, number in self.vocabulary.items() if token not in self.pairs_of
        }
        if self.definition["byte_fallback"]:
            needed |= _bytes(self.vocabulary)
        waiting = [token for token, number in self.vocabulary.items() if number in kept]
        while waiting:
            for part in self._parts(waiting.pop()):
                number = self.vocabulary[part]
                if number not in needed:
                    needed.add(number)
                    waiting.append(part)
        return needed

    @override
    def restrict(self, numbers: Mapping[int, int]) -> dict[str, Any]:
        restricted = super().restrict(numbers)
        kept: dict[str, int] = restricted["vocab"]
        merges = [pair for pair in self.pairs if {*pair, self._merged(pair)} <= kept.keys()]
        return {**restricted, "merges": merges}

    def _parts(self, token: str) -> list[str]:
        """Return the tokens that ``token`` is merged from.

        Many vocabularies have several pairs for one token. No merge reaches over the ends of a
        token that is left at last, so any word makes it by the same merges as its characters alone.
        Where these are marked by their place in the word, or stand for bytes, all pairs count.
        """
        pairs = self.pairs_of.get(token, [])
        if len(pairs) > 1 and not (self.prefix or self.definition["end_of_word_suffix"]):
            pairs = self._last_pair(list(token)) or pairs
        return [part for pair in pairs for part in pair]

    def _last_pair(self, symbols: list[str]) -> list[tuple[str, str]]:
        """Merge the symbols into one, and return the last pair; none if they cannot be merged."""
        while len(symbols) > 1:
            candidates = list(pairwise(symbols))
            last = min(candidates, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if last not in self.ranks:
                return []
            at = candidates.index(last)
            symbols[at : at + 2] = [self._merged(last)]
            if len(symbols) == 1:
                return [last]
        return []

    def _merged(self, pair: tuple[str, str]) -> str:
        left, right = pair
        return left + right[len(self.prefix) :]


MODELS: Mapping[str, type[SubwordModel]] = {
    "WordLevel": WordLevel,
    "WordPiece": WordPiece,
    "Unigram": Unigram,
    "BPE": BytePairs,
}


def _bytes(vocabulary: Mapping[str, int]) -> set[int]:
    """Return the tokens ``<0x00>`` to ``<0xFF>``, which spell out what has no other token."""
    return {number for token, number in vocabulary.items() if _BYTE.fullmatch(token)}
