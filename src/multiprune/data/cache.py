"""Encoded rows on disk: each split is tokenized once, whatever runs need it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from multiprune.data.rows_file import RowsFile
from multiprune.runs.atomic import atomic_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from datasets import Dataset
    from pyarrow import Table
    from transformers import PreTrainedTokenizerBase

    from multiprune.tasks.rows import Rows
    from multiprune.tasks.task import Task

log = logging.getLogger(__name__)

_ROWS, _COUNTS = "rows.arrow", "counts.json"

# Part of every key: raise it when encoded rows change their meaning.
_FORMAT = 3


def default_cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/multiprune``, or ``~/.cache/multiprune``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multiprune"


def encoded_rows(
    task: Task,
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    folder: Path,
) -> tuple[Dataset, int]:
    """Return the encoded rows of a split and how many of them were truncated.

    Tokenizes (on all cores), some rows at a time, and writes below ``folder`` what is not there
    yet; of several processes that need the same, one does and the others wait. A reader never sees
    half-written rows: they are written beside, then renamed. What cannot be read, as where old
    files are cleared away, is written anew.
    """
    key = encoding_key(task, rows.fingerprint, tokenizer, max_length)
    return stored(folder / key, lambda: task.encode_parts(rows, tokenizer, max_length))


def stored(
    place: Path, make: Callable[[], Iterable[tuple[Table | Mapping[str, Any], int]]]
) -> tuple[Dataset, int]:
    """Return the rows in the folder ``place``, which one process makes if they are not there.

    They are mapped to memory, not read. ``make`` gives them in parts.
    """
    if (found := _read(place)) is not None:
        return found
    with _alone(place):
        if (found := _read(place)) is not None:
            return found
        # What others wrote before is damaged.
        shutil.rmtree(place, ignore_errors=True)
        _write(place, make())
        found = _read(place)
    if found is None:
        raise OSError(f"Rows that were just written to {place} cannot be read.")
    return found


def _read(place: Path) -> tuple[Dataset, int] | None:
    from datasets import Dataset

    if not place.is_dir():
        return None
    try:
        counts = json.loads((place / _COUNTS).read_text())
        table = Dataset.from_file(str(place / _ROWS))
        # A file that ends between two parts can be read.
        if len(table) != counts["rows"]:
            raise ValueError(f"{counts['rows']:,} rows were written, but {len(table):,} are there")
        return table, counts["truncated"]
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read and is rebuilt: %s", place, error)
        return None


def _write(place: Path, parts: Iterable[tuple[Table | Mapping[str, Any], int]]) -> None:
    from datasets import Dataset

    try:
        with atomic_folder(place) as beside, closing(RowsFile(beside / _ROWS)) as file:
            counts = {"rows": 0, "truncated": 0}
            for part, truncated in parts:
                table = part
                if isinstance(part, Mapping):
                    table = Dataset.from_dict(dict(part)).data.table
                file.write(table)
                counts["rows"] += len(table)
                counts["truncated"] += truncated
            (beside / _COUNTS).write_text(json.dumps(counts))
    except OSError:
        # Without a lock, another process may have written the same rows in the meantime.
        if not place.is_dir():
            raise


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold the lock of ``place``; some shared file systems have none, and work is done twice."""
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        log.warning("Several runs may tokenize the same rows at once: %s", error)
        yield
        return
    try:
        yield
    finally:
        lock.release()


def encoding_key(
    task: Task, fingerprint: str, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> str:
    """Return a digest of all that the encoded rows depend on; ``fingerprint`` is of the rows.

    Raises:
        ValueError: if the tokenizer is not a fast one.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            "A fast tokenizer (of the library `tokenizers`) is required, but this is a "
            f"{type(tokenizer).__name__}."
        )
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    parts = [_FORMAT, dict(task.cache_key), fingerprint, backend.to_str(), max_length]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
