"""Comparable corpora, made of parallel ones by removing some translations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from multiprune.data.file_rows import rewritten
from multiprune.tasks.columns import check_present
from multiprune.tasks.languages import LANGUAGE
from multiprune.tasks.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pyarrow import ChunkedArray

    from multiprune.tasks.columns import Columns
    from multiprune.tasks.rows import Source

# Part of every fingerprint: raise it when other sentences are left out.
_FORMAT = 1

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
        rows = self.source.load("test", mirror=mirror, languages=languages, columns=columns)
        if split not in _SPLITS or rows is None:
            return None
        check_present([*self.text, LANGUAGE], rows.table.column_names, rows.origin)
        kept, places = _places(rows.table.with_format("arrow")[LANGUAGE][:], split)

        def part(columns: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
            for turn, column in ((1, self.text[1]), (2, self.text[0])):
                columns[column] = [
                    None if places[number] % 3 == turn else one
                    for number, one in zip(numbers, columns[column], strict=True)
                ]
            return columns

        fingerprint = f"{rows.fingerprint}-{split}"
        table = rewritten(
            rows.table.select(kept),
            part,
            features=rows.table.features,
            depends_on=[_FORMAT, self.text, fingerprint],
        )
        return Rows(table, f"{rows.origin} ({split} of a comparable corpus)", fingerprint)


def _places(languages: ChunkedArray, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of a split, and the place of each in its language's part of it."""
    of_row = languages.dictionary_encode().combine_chunks().indices.to_numpy()
    place = np.empty(len(of_row), np.int64)
    for language in range(of_row.max(initial=-1) + 1):
        mine = np.flatnonzero(of_row == language)
        place[mine] = np.arange(len(mine))
    kept = np.flatnonzero(place % len(_SPLITS) == _SPLITS.index(split))
    return kept, place[kept] // len(_SPLITS)
