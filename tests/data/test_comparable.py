from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from datasets import Dataset

from multiprune.data.comparable import ComparableCorpus
from multiprune.tasks.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from multiprune.tasks.columns import Columns

TEXT = ["sentence", "english"]


@dataclass(frozen=True)
class Parallel:
    """Two languages, row by row in turns, and one row more of the second."""

    columns: tuple[str, ...] = (*TEXT, "lang")

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,
        languages: Sequence[str] | None = None,  # noqa: ARG002
        columns: Columns | None = None,  # noqa: ARG002
    ) -> Rows | None:
        if split != "test":
            return None
        count = 13
        made = {
            "sentence": [f"s{row}" for row in range(count)],
            "english": [f"e{row}" for row in range(count)],
            "lang": ["de" if row % 2 and row < 12 else "sw" for row in range(count)],
        }
        kept = {name: made[name] for name in self.columns}
        return Rows(Dataset.from_dict(kept), f"corpus of {mirror}", "fingerprint")


def loaded(split: str) -> Rows:
    rows = ComparableCorpus(source=Parallel(), text=TEXT).load(split, mirror=None)
    assert rows is not None
    return rows


def test_rows_of_each_language_are_dealt_out_and_two_of_three_lose_a_sentence() -> None:
    # Swahili: rows 0, 2, 4, …, 12. German: rows 1, 3, …, 11.
    assert loaded("validation").table.to_dict() == {
        "sentence": ["s0", "s1", "s4", "s5", None, None, "s12"],
        "english": ["e0", "e1", None, None, "e8", "e9", "e12"],
        "lang": ["sw", "de", "sw", "de", "sw", "de", "sw"],
    }
    assert loaded("test").table.to_dict() == {
        "sentence": ["s2", "s3", "s6", "s7", None, None],
        "english": ["e2", "e3", None, None, "e10", "e11"],
        "lang": ["sw", "de", "sw", "de", "sw", "de"],
    }


@dataclass(frozen=True)
class Large:
    """Three languages in some order, in more rows than are made at a time."""

    def load(self, split: str, **_: Any) -> Rows:
        draw = Random(split)
        made = {name: [f"{name} {row}" for row in range(4000)] for name in TEXT}
        made["lang"] = draw.choices(["de", "sw", "fi"], k=4000)
        return Rows(Dataset.from_dict(made), "large", "fingerprint")


@pytest.mark.parametrize(("split", "turn"), [("validation", 0), ("test", 1)])
def test_large_corpora_are_dealt_out_as_small_ones(split: str, turn: int) -> None:
    corpus = ComparableCorpus(source=Large(), text=TEXT)
    found = corpus.load(split, mirror=None)
    assert found is not None
    # Row by row, as it is described.
    seen: Counter[str] = Counter()
    expected = []
    for row in Large().load("test").table:
        place, odd = divmod(seen[row["lang"]], 2)
        seen[row["lang"]] += 1
        if odd == turn:
            lost = {1: {TEXT[1]: None}, 2: {TEXT[0]: None}}.get(place % 3, {})
            expected.append(row | lost)
    assert [*found.table] == expected
    assert found.table.cache_files  # on the disk


def test_splits_have_no_row_in_common_and_are_told_apart() -> None:
    known, other = loaded("validation"), loaded("test")
    assert known.fingerprint != other.fingerprint
    assert known.origin == "corpus of None (validation of a comparable corpus)"
    for column in TEXT:
        both = {*known.table[column]} & {*other.table[column]}
        assert both <= {None}
    assert ComparableCorpus(source=Parallel(), text=TEXT).load("train", mirror=None) is None


def test_what_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must name 2 columns, but names \['sentence'\]"):
        ComparableCorpus(source=Parallel(), text=["sentence"])
    corpus = ComparableCorpus(source=Parallel(("sentence", "english")), text=TEXT)
    with pytest.raises(ValueError, match="must have a column 'lang', but has sentence, english"):
        corpus.load("test", mirror=None)
