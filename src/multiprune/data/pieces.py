"""Shards of files that can be read independently: lines, and rows of parquet files."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import fsspec

from multiprune.data.text_source import split_lines
from multiprune.message import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# So many footers of parquet files are read at once: each is a wait for the network.
_AT_ONCE = 16
_CHUNK = 1 << 16

# What tells that a file has changed, by the file system that knows it.
_MARKS = ("ETag", "etag", "blob_id", "mtime", "LastModified", "last_modified", "updated", "created")


class CorpusError(ValueError):
    """Data cannot be read as they should be; found while or just before they are trained on."""


@dataclass(frozen=True)
class File:
    """A file as it was found: where, its size in bytes, and what changes when it does."""

    url: str
    size: int
    mark: str

    @classmethod
    def found(cls, system: Any, path: str) -> File:
        """Look at a file of a file system."""
        info = system.info(path)
        mark = next((str(info[key]) for key in _MARKS if info.get(key)), "")
        return cls(system.unstrip_protocol(path), int(info["size"]), mark)

    @property
    def name(self) -> str:
        """The place of the file as a person writes it."""
        return self.url.removeprefix("file://")

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Open the file, which must be the one that was found."""
        import pyarrow

        try:
            system, path = fsspec.core.url_to_fs(self.url)
            if File.found(system, path) != self:
                raise CorpusError(f"{self.name} was modified while the corpus was being read.")
            with system.open(path, "rb") as stream:
                yield stream
        except (OSError, pyarrow.ArrowException) as error:
            raise CorpusError(f"{self.name} of the corpus cannot be read: {error}") from error


@dataclass(frozen=True)
class Piece:
    """A part of a file that can be read without the rest.

    The lines whose first byte is one of ``first`` to ``last - 1``; of a parquet file, the rows
    ``first`` to ``last - 1`` of a row group, in one column.
    """

    file: File
    first: int
    last: int
    column: str | None = None
    row_group: int = 0

    @property
    def fingerprint(self) -> str:
        """What changes when the texts do."""
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest()

    def texts(self) -> list[str]:
        """Read the lines, without what ends them, or the values.

        Raises:
            CorpusError: if a line is not UTF-8, or a value null, or the file has changed or cannot
                be read.
        """
        with self.file.opened() as stream:
            return self._lines(stream) if self.column is None else self._values(stream)

    def _lines(self, stream: Any) -> list[str]:
        begin = _line_start(stream, self.first, self.last)
        if begin >= self.last:
            return []
        end = _line_start(stream, self.last, self.file.size)
        stream.seek(begin)
        content: bytes = stream.read(end - begin)
        try:
            return split_lines(content.decode())
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"A text file must be UTF-8, but byte {begin + error.start:,} of "
                f"{self.file.name} is not."
            ) from error

    def _values(self, stream: Any) -> list[str]:
        from pyarrow.parquet import ParquetFile

        group = ParquetFile(stream).read_row_group(self.row_group, columns=[self.column])
        values = group[self.column].slice(self.first, self.last - self.first)
        texts: list[str] = values.to_pylist()
        if values.null_count:
            raise CorpusError(
                f"Column {self.column!r} of {self.file.name} must hold a value in each row, but "
                f"row {self.first + texts.index(None):,} of row group {self.row_group:,} is null."  # type: ignore[arg-type]
            )
        return texts


def files_of(pattern: str) -> list[File]:
    """Return the files that fit a pattern, by name.

    ``pattern`` is a path or a URL of any file system that fsspec knows.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if the file system is unknown or out of reach.
    """
    try:
        system, path = fsspec.core.url_to_fs(pattern)
        names = [one for one in sorted(system.glob(path)) if system.isfile(one)]
        found = [File.found(system, one) for one in names]
    except (OSError, ValueError, ImportError) as error:
        reason = first_line(error)
        raise ValueError(f"The corpus {pattern} cannot be reached: {reason}") from error
    if not found:
        raise FileNotFoundError(f"No files of the corpus match {pattern}.")
    return found


def pieces_of(files: Sequence[File], *, column: str, size: int) -> list[Piece]:
    """Cut files to pieces of about ``size`` bytes of text, however long the lines are.

    Files that end in ``.parquet`` are cut to row groups, and these to parts if they are larger; all
    others are lines of text.

    Raises:
        CorpusError: if a parquet file is not one, or has no such column of texts.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        cut = pool.map(lambda file: _cut(file, column, size), files)
        return [piece for pieces in cut for piece in pieces]


def _cut(file: File, column: str, size: int) -> list[Piece]:
    if not file.url.endswith(".parquet"):
        starts = range(0, file.size, size)
        return [Piece(file, first, min(first + size, file.size)) for first in starts]
    from pyarrow.parquet import ParquetFile

    with file.opened() as stream:
        parquet = ParquetFile(stream)
        _check_column(file, parquet.schema_arrow, column)
        pieces: list[Piece] = []
        for number in range(parquet.metadata.num_row_groups):
            group = parquet.metadata.row_group(number)
            chunks = map(group.column, range(group.num_columns))
            bytes_of = {one.path_in_schema: one.total_uncompressed_size for one in chunks}
            parts = min(group.num_rows, max(1, -(-bytes_of[column] // size)))
            bounds = [group.num_rows * part // parts for part in range(parts + 1) if parts]
            pieces += [Piece(file, *one, column, number) for one in pairwise(bounds)]
    return pieces


def _check_column(file: File, schema: Any, column: str) -> None:
    from pyarrow.types import is_large_string, is_string

    if column not in schema.names:
        raise CorpusError(
            f"{file.name} must have a column {column!r}, but has {', '.join(schema.names)}."
        )
    kind = schema.field(column).type
    if not (is_string(kind) or is_large_string(kind)):
        raise CorpusError(f"Column {column!r} of {file.name} must hold texts, but holds {kind}.")


def _line_start(stream: Any, position: int, end: int) -> int:
    """Return where the first line begins that begins at ``position`` or later, at most ``end``."""
    if position == 0:
        return 0
    place = position - 1
    stream.seek(place)
    while place < end and (chunk := stream.read(min(_CHUNK, end - place))):
        if (found := chunk.find(b"\n")) >= 0:
            return int(place + found + 1)
        place += len(chunk)
    return end
