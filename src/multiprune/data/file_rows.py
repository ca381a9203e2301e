"""Read, concatenate and split rows of files, found by name or pattern."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from multiprune.data.cache import default_cache_folder, stored
from multiprune.data.rows_file import RowsFile
from multiprune.data.tables import table_parts
from multiprune.tasks.columns import row_slices
from multiprune.tasks.labels import class_names
from multiprune.tasks.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from datasets import Dataset, Features
    from pyarrow import Table

    from multiprune.tasks.columns import Columns

# Part of every key: raise it when files are read in another way.
_FORMAT = 1


def matching_files(pattern: str | Path, split: str) -> list[Path]:
    """Return the files that a path names, whose last part may be a pattern, in alphabetical order.

    Raises:
        FileNotFoundError: if there is none for this split.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        raise FileNotFoundError(
            f"The {split} file {path} is a folder: name the files in it, as in {path / '*.csv'}."
        )
    if found := sorted(one for one in path.parent.glob(path.name) if one.is_file()):
        return found
    seen_from = "" if path.is_absolute() else f" in {Path.cwd()}"
    raise FileNotFoundError(f"The {split} file {path} does not exist{seen_from}.")


def read_rows(files: Sequence[Path], columns: Columns | None, *, origin: str) -> Rows:
    """Return the rows of files behind each other, with the columns that are asked for.

    Raises:
        ValueError: if a file cannot be read or lacks a column, files hold other things in the same
            column, or there are no rows.
    """
    digest = hashlib.sha256()
    tables = []
    for file in files:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256")
        digest.update(found.digest())
        tables.append(_dataset(file, columns, found.hexdigest()))
    if len(files) == 1:
        digest = found
    table = joined(tables, origin)
    if len(table) == 0:
        raise ValueError(f"{origin} has no rows.")
    return Rows(table, origin, digest.hexdigest())


def joined(tables: Sequence[Dataset], origin: str) -> Dataset:
    """Return tables behind each other, whose numbers may be of several types.

    Raises:
        ValueError: if they do not hold the same in a column.
    """
    import pyarrow
    from datasets import Dataset, concatenate_datasets

    if len(tables) == 1:
        return tables[0]
    try:
        if any(class_names(one, name) for one in tables for name in one.column_names):
            # Refuses other names, or the same in another order.
            return concatenate_datasets([*tables])
        parts = [one.with_format("arrow")[:] for one in tables]
        return Dataset(pyarrow.concat_tables(parts, promote_options="permissive"))
    except (ValueError, TypeError, pyarrow.ArrowException) as error:
        raise ValueError(
            f"{origin} have different types in a column and cannot be joined: {error}"
        ) from error


def rewritten(
    table: Dataset,
    part: Callable[[dict[str, list[Any]], list[int]], dict[str, list[Any]]],
    *,
    features: Features,
    depends_on: object,
) -> Dataset:
    """Return a table whose rows are made anew, some at a time, and lie on the disk.

    ``part`` takes columns of some rows and the numbers of these, and returns columns of as many.
    ``depends_on`` is all that it depends on besides, its own version among that: what `datasets`
    finds for itself does not tell the code of functions that it calls.
    """
    made = repr([depends_on, table._fingerprint])
    fingerprint = hashlib.sha256(made.encode()).hexdigest()[:32]
    return table.map(
        part,
        with_indices=True,
        batched=True,
        features=features,
        new_fingerprint=fingerprint,
        cache_file_name=str(rows_folder() / f"{fingerprint}.arrow"),
    )


def collected(parts: Iterable[Table]) -> tuple[Dataset, str]:
    """Return rows that come in parts, one at least, on the disk, and a digest of what they hold."""
    import pyarrow

    folder = rows_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=folder) as beside:
        file = Path(beside) / "rows.arrow"
        with closing(RowsFile(file)) as rows:
            for part in parts:
                rows.write(part)
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as batches:
            found = ((pyarrow.Table.from_batches([one]), 0) for one in batches)
            table, _ = stored(folder / digest[:32], lambda: found)
    return table, digest


def rows_folder() -> Path:
    """Return where rows of files lie: beside the data sets of the hub, if one may write there."""
    from datasets import config

    beside = Path(config.HF_DATASETS_CACHE) / "multiprune"
    return beside if _is_writable(beside) else default_cache_folder() / "rows"


def _is_writable(folder: Path) -> bool:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK)


def _dataset(file: Path, columns: Columns | None, digest: str) -> Dataset:
    """Return the rows of a file, whose content has this digest, where they lie on the disk."""
    import pyarrow

    chosen = None if columns is None else [columns.names, [*columns.text]]
    key = json.dumps([_FORMAT, digest, file.suffix.lower(), chosen])
    place = rows_folder() / hashlib.sha256(key.encode()).hexdigest()[:32]
    try:
        return stored(place, lambda: ((part, 0) for part in _readable(file, columns)))[0]
    except pyarrow.ArrowException as error:
        raise ValueError(
            f"The columns of {file} must hold values of one type, but: {error}."
        ) from error


def _readable(file: Path, columns: Columns | None) -> Iterator[Table]:
    from datasets import Features
    from pyarrow import schema

    seen = None
    for part in table_parts(file, columns):
        for field in part.schema if part.schema != seen else ():
            try:
                Features.from_arrow_schema(schema([field]))
            except (ValueError, NotImplementedError) as error:
                raise ValueError(
                    f"Column {field.name!r} of {file} holds {field.type}, which cannot be read."
                ) from error
        seen = part.schema
        yield part


def part_of(rows: Rows, share: float, *, seed: int, classes: str | None, set_aside: bool) -> Rows:
    """Return a share of rows that is set aside, or those that are left.

    The choice depends on the seed and the values of the column ``classes`` alone, each of which has
    its share in both parts, as far as whole rows go, and a row at least in what is left.
    """
    aside = _set_aside(_numbered(rows, classes), share, seed)
    table = rows.table.select(np.flatnonzero(aside == set_aside))
    which = "validation" if set_aside else "training"
    if len(table) == 0:
        raise ValueError(
            f"`validation` leaves no rows for one split: {share} of {len(aside):,} rows of "
            f"{rows.origin}."
        )
    part = f"{which} {share} {seed} {classes}"
    return replace(
        rows,
        table=table,
        origin=f"{rows.origin} ({which} part)",
        fingerprint=f"{rows.fingerprint} {part}",
    )


def _numbered(rows: Rows, classes: str | None) -> np.ndarray[Any, Any]:
    """Return a number for each row, the same for those of a class."""
    if classes is None:
        return np.zeros(len(rows.table), int)
    numbers: dict[str, int] = {}
    parts = [
        [numbers.setdefault(str(one), len(numbers)) for one in part.table[classes][:]]
        for part in row_slices(rows)
    ]
    return np.concatenate(parts)


def _set_aside(of_class: np.ndarray[Any, Any], share: float, seed: int) -> np.ndarray[Any, Any]:
    """Return which rows are set aside: evenly spaced ones, of all rows in the order of classes."""
    shuffled = np.random.default_rng(seed).permutation(len(of_class))
    ordered = shuffled[np.argsort(of_class[shuffled], kind="stable")]
    # The only row of a class is needed to learn it.
    ordered = ordered[np.bincount(of_class)[of_class[ordered]] > 1]
    due = np.floor(np.arange(len(ordered) + 1) * share + 0.5)
    aside = np.zeros(len(of_class), bool)
    aside[ordered[np.diff(due) > 0]] = True
    # Of few rows, a large share may be all of them.
    _, first, counts = np.unique(of_class, return_index=True, return_counts=True)
    aside[first[np.bincount(of_class[aside], minlength=len(counts)) == counts]] = False
    return aside
