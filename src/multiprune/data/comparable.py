"""Comparable corpora made of parallel ones: of some sentences, the translation is not there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multiprune.tasks.columns import check_present
from multiprune.tasks.languages import LANGUAGE
from multiprune.tasks.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from multiprune.tasks.columns import Columns
    from multiprune.tasks.rows import Source

#: What the rows of a language are dealt out to, one after the other.
_SPLITS = ("validation", "test")


@dataclass(frozen=True, kw_only=True)
class ComparableCorpus:
    """The test split of a parallel corpus, in which half of the sentences lost their translation.

    Of the rows of each language, the first, third, … are ``validation`` and the others ``test``. Of
    three rows of such a split, the first remains a pair, the second loses its translation, and the
    third its sentence: what is left of these two distracts. Nothing is drawn.

    Attributes:
        source: where the pairs come from.
        text: the columns of sentences and of their translations.
    """

    source: Source
    text: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.text) != 2:
            raise ValueError(f"`text` must name 2 columns, but names {list(self.text)}.")

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,
        languages: Sequence[str] | None = None,
        columns: Columns | None = None,
    ) -> Rows | None:
        """Return ``validation`` or ``test``, where None is what is not there.

        Raises:
            ValueError: if the corpus lacks a column.
        """
        from datasets import Dataset

        rows = self.source.load("test", mirror=mirror, languages=languages, columns=columns)
        if split not in _SPLITS or rows is None:
            return None
        found: dict[str, list[Any]] = rows.table.to_dict()
        check_present([*self.text, LANGUAGE], [*found], rows.origin)
        kept = _places(found[LANGUAGE], split)
        found = {name: [values[row] for row in kept] for name, values in found.items()}
        for turn, column in ((1, self.text[1]), (2, self.text[0])):
            found[column] = [
                None if place % 3 == turn else one
                for place, one in zip(kept.values(), found[column], strict=True)
            ]
        origin = f"{rows.origin} ({split} of a comparable corpus)"
        return Rows(Dataset.from_dict(found), origin, f"{rows.fingerprint}-{split}")


def _places(languages: Sequence[str], split: str) -> dict[int, int]:
    """Return the rows of a split, and the place of each in its language's part of it."""
    seen: Counter[str] = Counter()
    places = {}
    for row, language in enumerate(languages):
        if seen[language] % len(_SPLITS) == _SPLITS.index(split):
            places[row] = seen[language] // len(_SPLITS)
        seen[language] += 1
    return places
