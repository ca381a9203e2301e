"""Encoded rows on disk: each split is tokenized once, whatever runs need it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from multiprune.tasks.task import Rows, Task

log = logging.getLogger(__name__)

# Part of every key: raise it when encoded rows change their meaning.
_FORMAT = 1


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

    Tokenizes (on all cores) and writes below ``folder`` what is not there yet. A reader never sees
    half-written rows: they are written beside, then renamed. What cannot be read, as where old
    files are cleared away, is written anew.
    """
    from datasets import Dataset

    place = folder / _key(task, rows, tokenizer, max_length)
    try:
        return _read(place)
    except (OSError, ValueError) as error:
        if place.is_dir():
            log.warning("%s is written anew, because it cannot be read: %s", place, error)
            shutil.rmtree(place, ignore_errors=True)
    columns, truncated = task.encode(rows, tokenizer, max_length)
    beside = folder / f".writing-{uuid.uuid4().hex}"
    beside.mkdir(parents=True)
    try:
        Dataset.from_dict(columns).save_to_disk(beside, num_shards=1)
        (beside / "truncated.json").write_text(json.dumps(truncated))
        beside.rename(place)
    except OSError:
        # Another process may have written the same rows in the meantime.
        if not place.is_dir():
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return _read(place)


def _read(place: Path) -> tuple[Dataset, int]:
    from datasets import load_from_disk

    truncated = int(json.loads((place / "truncated.json").read_text()))
    return load_from_disk(place), truncated


def _key(task: Task, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    parts = [_FORMAT, dict(task.definition), rows.fingerprint, backend.to_str(), max_length]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
