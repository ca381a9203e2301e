"""Pieces of files, each read by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
from streamed_world import write_parquet

from multiprune.data.pieces import CorpusError, Piece, files_of, pieces_of
from multiprune.data.text_source import lines_of

if TYPE_CHECKING:
    from pathlib import Path

LONG = "long " * 40
CORPUS = ["one", "", "zwei Wörter", LONG, "drei\u2028und vier", "", "", "five", LONG, "six"]


def lines(folder: Path, content: bytes, size: int) -> list[list[str]]:
    file = folder / "a.txt"
    file.write_bytes(content)
    pieces = pieces_of(files_of(str(file)), column="text", size=size)
    return [piece.texts() for piece in pieces]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 64, 199, 201, 10_000])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
@pytest.mark.parametrize("between", ["\n", "\r\n"])
def test_every_line_is_in_the_piece_in_which_it_begins(
    tmp_path: Path, size: int, end: str, between: str
) -> None:
    content = (between.join(CORPUS) + end).encode()
    found = lines(tmp_path, content, size)
    # By hand: where each line begins.
    expected: list[list[str]] = [[] for _ in range(0, len(content), size)]
    place = 0
    for line in content.removesuffix(b"\n").split(b"\n"):
        expected[place // size].append(line.decode().removesuffix("\r"))
        place += len(line) + 1
    assert found == expected
    assert [one for piece in found for one in piece] == lines_of(tmp_path / "a.txt")


def test_a_line_of_ten_megabytes_is_one_text(tmp_path: Path) -> None:
    giant = "x" * 10_000_000
    found = lines(tmp_path, f"before\n{giant}\nafter\n".encode(), 1 << 20)
    assert found[0] == ["before", giant]
    assert found[1:-1] == [[]] * (len(found) - 2)
    assert found[-1] == ["after"]


def test_a_byte_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    content = b"one\ntwo\nthr\xffee\nfour\n"
    with pytest.raises(CorpusError, match=r"UTF-8, but byte 11 of .*a\.txt is not"):
        lines(tmp_path, content, 5)
    file = files_of(str(tmp_path / "a.txt"))[0]
    assert Piece(file, 0, 8).texts() == ["one", "two"]
    assert Piece(file, 12, len(content)).texts() == ["four"]


@pytest.mark.parametrize(("size", "count"), [(10_000, 4), (150, 8), (1, 30)])
def test_row_groups_are_cut_to_parts_no_larger_than_asked_for(
    tmp_path: Path, size: int, count: int
) -> None:
    texts = [f"text number {number:08}" for number in range(30)]
    file = write_parquet(tmp_path / "a.parquet", texts, row_group_size=8)
    pieces = pieces_of(files_of(file), column="text", size=size)
    assert len(pieces) >= count
    assert [text for piece in pieces for text in piece.texts()] == texts
    assert len({piece.fingerprint for piece in pieces}) == len(pieces)


def test_row_groups_without_rows_are_no_pieces(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", [], row_group_size=8)
    empty = pyarrow.table({"text": pyarrow.array([], pyarrow.string())})
    pyarrow.parquet.write_table(empty, file)
    assert pieces_of(files_of(file), column="text", size=10) == []


def test_parquet_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    def pieces(column: str = "text") -> list[str]:
        found = pieces_of(files_of(str(tmp_path / "a.parquet")), column=column, size=1000)
        return [text for piece in found for text in piece.texts()]

    (tmp_path / "a.parquet").write_text("not a table, but a text of some length")
    with pytest.raises(
        CorpusError, match=r"a\.parquet of the corpus cannot be read: Parquet magic"
    ):
        pieces()
    table = pyarrow.table({"text": ["one", None, "three"], "year": [1, 2, 3]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet must have a column 'body', but has text, y"):
        pieces("body")
    with pytest.raises(CorpusError, match=r"Column 'year' of .* must hold texts, but holds int64"):
        pieces("year")
    with pytest.raises(CorpusError, match="must hold a value in each row, but row 1 of row group"):
        pieces()


def test_files_are_found_on_any_file_system_by_name(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("b/2.txt", "a/1.txt", "a/other.md"):
        memory.pipe(f"/corpus/{name}", b"text\n")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"text\n")
    (tmp_path / "c" / "directory.txt").mkdir(parents=True)
    found = files_of("memory://corpus/**/*.txt")
    assert [file.name for file in found] == [f"memory:///corpus/{name}" for name in
                                             ("a/1.txt", "b/2.txt")]  # fmt: skip
    local = files_of(str(tmp_path / "**" / "*.txt"))
    assert [file.name for file in local] == [
        str(tmp_path / name) for name in ("a/1.txt", "b/2.txt")
    ]
    assert Piece(found[0], 0, 5).texts() == Piece(local[0], 0, 5).texts() == ["text"]


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("nowhere/*.txt", FileNotFoundError, r"No files of the corpus match nowhere/\*\.txt"),
        ("nothing://corpus", ValueError, "nothing://corpus cannot be reached: Protocol not"),
        ("hf://datasets/one/two/*.parquet", ValueError, "hf://datasets/one.* cannot be reached"),
    ],
)
def test_what_cannot_be_found_is_refused(
    pattern: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        files_of(pattern)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\n")
    first, second = pieces_of(files_of(str(file)), column="text", size=4)
    assert first.texts() == ["one"]
    file.write_text("one\ntwo and more\n")
    with pytest.raises(CorpusError, match=r"a\.txt was modified while"):
        second.texts()
    file.unlink()
    with pytest.raises(CorpusError, match=r"a\.txt of the corpus cannot be read"):
        second.texts()


def test_the_fingerprint_of_a_piece_follows_file_and_bounds(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\n")

    def fingerprints() -> list[str]:
        pieces = pieces_of(files_of(str(file)), column="text", size=4)
        return [piece.fingerprint for piece in pieces]

    before = fingerprints()
    assert before == fingerprints()
    file.write_text("one\ntwo, three\n")
    after = fingerprints()
    assert not set(before) & set(after)
    assert len(set(after)) == len(after)
