"""Read selected columns of CSV, TSV, JSON lines and parquet files."""

from __future__ import annotations

import csv
import json
import re
import sys
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from multiprune.tasks.columns import check_present

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pyarrow import Schema, Table

    from multiprune.tasks.columns import Columns

# Of more digits, a number may not fit in 64 bits; one that begins with 0 is a code.
_WHOLE = r"(0|[1-9][0-9]{0,17})"
_INTEGER = re.compile(rf"[+-]?{_WHOLE}")
_NUMBER = re.compile(rf"[+-]?({_WHOLE}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

# What cells may be instead of text, the narrower first.
_KINDS: tuple[tuple[re.Pattern[str], type], ...] = ((_INTEGER, int), (_NUMBER, float))

# So many rows are read at a time.
_ROWS = 1000

_Values = dict[str, list[Any]]
# The values of a line that are asked for, and the names of the others.
_Chosen = tuple[dict[str, Any], tuple[str, ...]]


def table_parts(file: Path, columns: Columns | None = None) -> Iterator[Table]:
    """Yield some columns of a table, all by default, some rows at a time: one part at least.

    The name's ending says what the file is. CSV and TSV have a header and are in UTF-8; an empty
    cell is null; columns that are not of text and hold nothing but numbers become numbers. The type
    of a column is what fits the part; together they are what ``RowsFile`` makes of them.

    Raises:
        ValueError: if the ending is unknown, a column is missing, or the file is not what its
            ending says.
    """
    ending = file.suffix.lower()
    if ending not in _READERS:
        raise ValueError(f"A file of rows must end in {', '.join(_READERS)}, but {file} does not.")
    yield from _READERS[ending](file, columns)


def _parquet(file: Path, columns: Columns | None) -> Iterator[Table]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file, memory_map=True) as parquet:
            present = parquet.schema_arrow.names
            if columns is not None:
                check_present(columns.names, present, str(file))
            names = None if columns is None else columns.names
            yield _plain(parquet.read_row_groups([], columns=names))
            for batch in parquet.iter_batches(_ROWS, columns=names):
                yield _plain(pyarrow.Table.from_batches([batch]))
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{file} is not a parquet file: {error}") from error


def _plain(table: Table) -> Table:
    """Return a table without types that say how values are laid out."""
    import pyarrow

    for place, field in enumerate(table.schema):
        plain = None
        if pyarrow.types.is_dictionary(field.type):  # the categories of pandas
            plain = field.type.value_type
        elif pyarrow.types.is_string_view(field.type):
            plain = pyarrow.string()
        if plain is not None:
            table = table.set_column(place, field.name, table.column(place).cast(plain))
    return table


def _separated(file: Path, columns: Columns | None, *, separator: str) -> Iterator[Table]:
    # Longer than 131,072 characters, a text would be refused.
    csv.field_size_limit(sys.maxsize)
    texts = columns.text if columns is not None else ()
    kinds: dict[str, int] = {}
    # All cells say what a column holds, so they are read twice.
    for found in _parts_of_cells(file, columns, separator):
        for name, cells in found.items():
            kind = len(_KINDS) if name in texts else kinds.get(name, 0)
            while kind < len(_KINDS) and not _are(cells, _KINDS[kind][0]):
                kind += 1
            kinds[name] = kind
    for found in _parts_of_cells(file, columns, separator):
        yield _table(file, {name: _typed(cells, kinds[name]) for name, cells in found.items()})


def _parts_of_cells(file: Path, columns: Columns | None, separator: str) -> Iterator[_Values]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(stream, delimiter=separator, strict=True)
        try:
            yield from _cells(file, lines, columns, lambda: lines.line_num)
        except csv.Error as error:
            raise ValueError(
                f"Line {lines.line_num:,} of {file} must be {file.suffix[1:].upper()}, but is not: "
                f"{error}."
            ) from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} must be text in UTF-8, but is not: {error}.") from error


def _cells(
    file: Path, lines: Iterable[list[str]], columns: Columns | None, number: Callable[[], int]
) -> Iterator[_Values]:
    rows = iter(lines)
    header = next(rows, [])
    if not header:
        raise ValueError(f"{file} must begin with the names of its columns, but is empty.")
    names = header if columns is None else columns.names
    check_present(names, header, str(file))
    if twice := [name for name in names if header.count(name) > 1]:
        raise ValueError(f"{file} has more than one column {twice[0]!r}.")
    places = {name: header.index(name) for name in names}
    found: _Values = {name: [] for name in names}
    count = 0
    # The reader gives nothing for an empty line.
    for count, row in enumerate(filter(None, rows), 1):
        _check_row(file, row, header, number)
        for name, place in places.items():
            found[name].append(row[place] or None)
        if count % _ROWS == 0:
            yield found
            found = {name: [] for name in names}
    if count == 0 or count % _ROWS:
        yield found


def _check_row(
    file: Path, row: Sequence[str], header: Sequence[str], number: Callable[[], int]
) -> None:
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


def _are(cells: Iterable[str | None], pattern: re.Pattern[str]) -> bool:
    return all(pattern.fullmatch(one) for one in cells if one is not None)


def _typed(cells: list[str | None], kind: int) -> list[Any]:
    if kind == len(_KINDS):
        return list(cells)
    number = _KINDS[kind][1]
    return [None if one is None else number(one) for one in cells]


def _json_lines(file: Path, columns: Columns | None) -> Iterator[Table]:
    present: dict[str, None] = {}
    schema = None
    for rows in _parts_of_lines(file, columns):
        present |= dict.fromkeys(name for row, others in rows for name in (*row, *others))
        names = [*present] if columns is None else columns.names
        part = _table(file, {name: [row.get(name) for row, _ in rows] for name in names})
        schema = part.schema if schema is None else _joined(file, schema, part.schema)
        yield part
    if schema is not None:
        check_present([] if columns is None else columns.names, [*present], str(file))
    if schema is None:
        yield _table(file, {name: [] for name in ([] if columns is None else columns.names)})


def _parts_of_lines(file: Path, columns: Columns | None) -> Iterator[list[_Chosen]]:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            rows = (
                _chosen(file, number, line, columns)
                for number, line in enumerate(stream, 1)
                if line.strip()
            )
            while part := [*islice(rows, _ROWS)]:
                yield part
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be text in UTF-8, but is not: {error}.") from error


def _joined(file: Path, known: Schema, new: Schema) -> Schema:
    """Return the types that columns have in two parts of a file."""
    import pyarrow

    for name in new.names:
        fields = [pyarrow.schema([one.field(name)]) for one in (known, new) if name in one.names]
        try:
            pyarrow.unify_schemas(fields, promote_options="permissive")
        except pyarrow.ArrowException as error:
            raise _of_several_types(file, name, error) from error
    return pyarrow.unify_schemas([known, new], promote_options="permissive")


def _chosen(file: Path, number: int, line: str, columns: Columns | None) -> _Chosen:
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
            name.encode()
            arrays[name] = pyarrow.array(values)
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Column {name!a} of {file} must hold text in Unicode, but: {error}."
            ) from error
        except (pyarrow.ArrowException, OverflowError, TypeError) as error:
            raise _of_several_types(file, name, error) from error
    return pyarrow.table(arrays)


def _of_several_types(file: Path, name: str, error: Exception) -> ValueError:
    return ValueError(f"Column {name!r} of {file} must hold values of one type, but: {error}.")


#: By the ending of a file's name.
_READERS: Mapping[str, Callable[[Path, Columns | None], Iterator[Table]]] = {
    ".csv": partial(_separated, separator=","),
    ".tsv": partial(_separated, separator="\t"),
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}
