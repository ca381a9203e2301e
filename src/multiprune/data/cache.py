"""Encoded rows on disk: each split is tokenized once, whatever runs need it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from multiprune.tasks.task import Rows, Task

log = logging.getLogger(__name__)

# Part of every key: raise it when encoded rows change their meaning.
_FORMAT = 2


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

    Tokenizes (on all cores) and writes below ``folder`` what is not there yet; of several processes
    that need the same, one does and the others wait. A reader never sees half-written rows: they
    are written beside, then renamed. What cannot be read, as where old files are cleared away, is
    written anew.
    """
    key = encoding_key(task, rows.fingerprint, tokenizer, max_length)
    return stored(folder / key, lambda: task.encode(rows, tokenizer, max_length))


def stored(place: Path, make: Callable[[], tuple[Mapping[str, Any], int]]) -> tuple[Dataset, int]:
    """Return the rows in the folder ``place``, which one process makes if they are not there."""
    if (found := _read(place)) is not None:
        return found
    with _alone(place) as is_alone:
        if (found := _read(place)) is not None:
            return found
        # What processes that were killed have left.
        for other in place.parent.glob(_beside(place, "*").name) if is_alone else ():
            shutil.rmtree(other, ignore_errors=True)
        # What others wrote before is damaged.
        shutil.rmtree(place, ignore_errors=True)
        _write(place, *make())
        found = _read(place)
    if found is None:
        raise OSError(f"Encoded rows must be readable, but those just written to {place} are not.")
    return found


def _read(place: Path) -> tuple[Dataset, int] | None:
    from datasets import load_from_disk

    if not place.is_dir():
        return None
    try:
        truncated = int(json.loads((place / "truncated.json").read_text()))
        return load_from_disk(place), truncated
    except (OSError, ValueError) as error:
        log.warning("%s is written anew, because it cannot be read: %s", place, error)
        return None


def _write(place: Path, columns: Mapping[str, Any], truncated: int) -> None:
    from datasets import Dataset

    beside = _beside(place, uuid.uuid4().hex)
    beside.mkdir(parents=True)
    try:
        Dataset.from_dict(dict(columns)).save_to_disk(beside, num_shards=1)
        (beside / "truncated.json").write_text(json.dumps(truncated))
        beside.rename(place)
    except OSError:
        # Without a lock, another process may have written the same rows in the meantime.
        if not place.is_dir():
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _beside(place: Path, mark: str) -> Path:
    return place.with_name(f".{place.name}.writing-{mark}")


@contextmanager
def _alone(place: Path) -> Iterator[bool]:
    """Hold the lock of ``place``; some shared file systems have none, and work is done twice.

    Yields whether it is held.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        log.warning("Rows may be tokenized by several runs at once: %s", error)
        yield False
        return
    try:
        yield True
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
            "Texts must be split by a tokenizer of the library `tokenizers`, which tells the "
            f"characters of each token, but a {type(tokenizer).__name__} is not one."
        )
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    parts = [_FORMAT, dict(task.definition), fingerprint, backend.to_str(), max_length]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
