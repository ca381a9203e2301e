"""Tables in files, CSV, TSV, JSON lines and parquet, of which only some columns are read."""

from __future__ import annotations

import csv
import json
import re
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from multiprune.tasks.columns import check_present

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from pyarrow import Table

    from multiprune.tasks.columns import Columns

# Of more digits, a number may not fit in 64 bits; one that begins with 0 is a code.
_WHOLE = r"(0|[1-9][0-9]{0,17})"
_INTEGER = re.compile(rf"[+-]?{_WHOLE}")
_NUMBER = re.compile(rf"[+-]?({_WHOLE}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

_Values = dict[str, list[Any]]


def read_table(file: Path, columns: Columns | None = None) -> Table:
    """Return some columns of a table, all by default.

    The name's ending says what the file is. CSV and TSV have a header and are in UTF-8; an empty
    cell is null; columns that are not of text and hold nothing but numbers become numbers.

    Raises:
        ValueError: if the ending is unknown, a column is missing, or the file is not what its
            ending says.
    """
    ending = file.suffix.lower()
    if ending not in _READERS:
        raise ValueError(f"A file of rows must end in {', '.join(_READERS)}, but {file} does not.")
    return _READERS[ending](file, columns)


def _parquet(file: Path, columns: Columns | None) -> Table:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            present = parquet.schema_arrow.names
            if columns is not None:
                check_present(columns.names, present, str(file))
            table = parquet.read(columns=None if columns is None else columns.names)
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"A split must be a parquet file, but {file} is not: {error}") from error
    for place, field in enumerate(table.schema):
        plain = None
        if pyarrow.types.is_dictionary(field.type):  # the categories of pandas
            plain = field.type.value_type
        elif pyarrow.types.is_string_view(field.type):
            plain = pyarrow.string()
        if plain is not None:
            table = table.set_column(place, field.name, table.column(place).cast(plain))
    return table


def _separated(file: Path, columns: Columns | None, *, separator: str) -> Table:
    # Longer than 131,072 characters, a text would be refused.
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(stream, delimiter=separator, strict=True)
        try:
            found = _cells(file, lines, columns, lambda: lines.line_num)
        except csv.Error as error:
            raise ValueError(
                f"Line {lines.line_num:,} of {file} must be {file.suffix[1:].upper()}, but is not: "
                f"{error}."
            ) from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} must be text in UTF-8, but is not: {error}.") from error
    texts = columns.text if columns is not None else ()
    return _table(
        file, {name: one if name in texts else _numbers(one) for name, one in found.items()}
    )


def _cells(
    file: Path, lines: Iterable[list[str]], columns: Columns | None, number: Callable[[], int]
) -> _Values:
    rows = iter(lines)
    header = next(rows, [])
    if not header:
        raise ValueError(f"{file} must begin with the names of its columns, but is empty.")
    names = header if columns is None else columns.names
    check_present(names, header, str(file))
    if twice := [name for name in names if header.count(name) > 1]:
        raise ValueError(f"{file} must have one column {twice[0]!r}, but has several.")
    found: _Values = {name: [] for name in names}
    places = [(found[name], header.index(name)) for name in names]
    # The reader gives nothing for an empty line.
    for row in filter(None, rows):
        if len(row) != len(header):
            raise ValueError(
                f"Line {number():,} of {file} must have a cell for each of {len(header)} columns, "
                f"but has {len(row)}."
            )
        # Quotation marks that are characters, in two cells, would join all that is between them.
        if file.suffix.lower() == ".tsv" and any("\n" in one and "\t" in one for one in row):
            raise ValueError(
                f"Line {number():,} of {file} ends a quoted cell with tabs and ends of lines in "
                "it: a quotation mark that begins a text must be doubled, and the text quoted."
            )
        for values, place in places:
            values.append(row[place] or None)
    return found


def _numbers(cells: list[str | None]) -> list[Any]:
    """Return cells as numbers if they are nothing else."""
    filled = [one for one in cells if one is not None]
    for pattern, kind in ((_INTEGER, int), (_NUMBER, float)):
        if all(map(pattern.fullmatch, filled)):
            return [None if one is None else kind(one) for one in cells]
    return list(cells)


def _json_lines(file: Path, columns: Columns | None) -> Table:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            rows = [
                _chosen(file, number, line, columns)
                for number, line in enumerate(stream, 1)
                if line.strip()
            ]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be text in UTF-8, but is not: {error}.") from error
    present = dict.fromkeys(name for row, others in rows for name in (*row, *others))
    names = [*present] if columns is None else columns.names
    if rows:
        check_present(names, [*present], str(file))
    return _table(file, {name: [row.get(name) for row, _ in rows] for name in names})


def _chosen(
    file: Path, number: int, line: str, columns: Columns | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the values of a line that are asked for, and the names of the others."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Line {number:,} of {file} must be JSON, but is not: {error}.") from error
    if not isinstance(row, dict):
        raise ValueError(
            f'Line {number:,} of {file} must be a JSON object, as in {{"text": "…"}}, but is a '
            f"{type(row).__name__}."
        )
    names = [*row] if columns is None else columns.names
    chosen = {name: row[name] for name in names if name in row}
    return chosen, tuple(name for name in row if name not in chosen)


def _table(file: Path, columns: Mapping[str, list[Any]]) -> Table:
    import pyarrow

    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pyarrow.array(values)
        except (pyarrow.ArrowException, OverflowError, TypeError, UnicodeEncodeError) as error:
            raise ValueError(
                f"Column {name!r} of {file} must hold values of one type, but: {error}."
            ) from error
    return pyarrow.table(arrays)


#: By the ending of a file's name.
_READERS: Mapping[str, Callable[[Path, Columns | None], Table]] = {
    ".csv": partial(_separated, separator=","),
    ".tsv": partial(_separated, separator="\t"),
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}
