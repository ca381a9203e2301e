"""Text files, and sources behind each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from multiprune.data.source import GeneratedSource, JoinedSource
from multiprune.data.text_source import TextSource

if TYPE_CHECKING:
    from pathlib import Path


def load(folder: Path, pattern: str = "*.txt") -> list[str]:
    rows = TextSource(files={"train": str(folder / pattern)}).load("train", mirror=None)
    assert rows is not None
    assert rows.table.column_names == ["text"]
    return rows.table["text"][:]  # type: ignore[no-any-return]


def test_lines_of_all_files_are_read_in_alphabetical_order(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"dritte\r\nvierte, ohne Ende")
    (tmp_path / "a.txt").write_text("erste\n\nzweite \u2028 Zeile \x0c hier\n")
    (tmp_path / "c.md").write_text("not this one\n")
    expected = ["erste", "", "zweite \u2028 Zeile \x0c hier", "dritte", "vierte, ohne Ende"]
    assert load(tmp_path) == expected


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\nthr\xffee\n")
    with pytest.raises(ValueError, match=r"line 3 of .*a\.txt is not"):
        load(tmp_path)


def test_no_file_and_no_line_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"text file .*\*\.txt does not exist"):
        load(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match="has no rows"):
        load(tmp_path)


def test_a_split_without_files_is_none() -> None:
    assert TextSource(files={"train": "x"}).load("test", mirror=None) is None


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    source = TextSource(files={"train": str(tmp_path / "a.txt")})
    found = []
    for text in ("one", "two", "one"):
        (tmp_path / "a.txt").write_text(text)
        rows = source.load("train", mirror=None)
        assert rows is not None
        found.append(rows.fingerprint)
    assert found[0] == found[2] != found[1]


def of(rows: dict[str, int], **columns: str) -> GeneratedSource:
    return GeneratedSource(
        generator=lambda count, _: {name: [text] * count for name, text in columns.items()},
        rows=rows,
    )


def test_joined_sources_have_their_rows_behind_each_other_and_what_they_share() -> None:
    first, second = of({"train": 2}, text="a", year="1"), of({"train": 1, "test": 1}, text="b")
    joined = JoinedSource(sources=[first, second])
    rows = joined.load("train", mirror=None)
    assert rows is not None
    assert rows.table.to_dict() == {"text": ["a", "a", "b"]}
    test = joined.load("test", mirror=None)
    assert test is not None
    assert test.table["text"][:] == ["b"]
    assert joined.load("validation", mirror=None) is None


def test_sources_that_share_no_column_are_refused() -> None:
    joined = JoinedSource(sources=[of({"train": 1}, text="a"), of({"train": 1}, line="b")])
    with pytest.raises(ValueError, match="have no column in common"):
        joined.load("train", mirror=None)
