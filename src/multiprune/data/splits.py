"""Read, filter and encode the splits of a task."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.data.batches import EncodedTask, capped
from multiprune.data.cache import encoded_rows
from multiprune.data.selection import used_rows, wanted_languages, without
from multiprune.data.source import FileSource
from multiprune.data.streamed_source import is_streamed
from multiprune.data.wordless import wordless_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from multiprune.tasks.rows import Rows
    from multiprune.tasks.task import Task

log = logging.getLogger(__name__)

_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class EncodedSplit:
    """Encoded rows, how many texts were cut, and where they are from.

    ``unlabelled`` is how many rows had no label, ``wordless`` which had no word.
    """

    table: Dataset
    truncated: int
    unlabelled: int
    wordless: Sequence[int]
    origin: str


@dataclass(frozen=True, kw_only=True)
class SplitReader:
    """Reads tasks for one encoder.

    Attributes:
        tokenizer: that of the encoder.
        max_length: of a sequence, in tokens.
        cache: folder of encoded rows.
        mirror: folder to read instead of the hub.
        language: the only one whose rows are used; None for those that each task asks for.
        seed: of the choice of training examples where there are too many.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    cache: Path
    mirror: Path | None
    language: str | None
    seed: int

    def encoded_task(self, name: str, task: Task, most: int | None) -> EncodedTask:
        """Return all splits of a task, encoded, with at most so many training examples.

        Those for training are missing where they are streamed.

        Raises:
            ValueError: if there is nothing to train or to validate with.
        """
        loaded = self.encoded_splits(name, task)
        splits = {split: one.table for split, one in loaded.items() if one is not None}
        if missing := [one for one in _SPLITS[:2] if one in loaded and one not in splits]:
            aside = isinstance(task.source, FileSource) and missing == ["validation"]
            raise ValueError(
                f"A task needs labelled rows to train and to validate with, but {name!r} has "
                f"none in {' and '.join(missing)}"
                + (f": task.{name}.source.validation=0.1 sets some aside." if aside else ".")
            )
        if (trained_on := loaded.get("train")) is not None:
            # A file that was copied may still name the data of another task.
            log.info("%s: training rows of %s.", name, trained_on.origin)
        if truncated := sum(one.truncated for one in loaded.values() if one is not None):
            log.warning("%s: truncated %d texts to %d tokens.", name, truncated, self.max_length)
        if unread := sum(map(task.unread_words, splits.values())):
            log.warning("%s: %d words were truncated and count as not found.", name, unread)
        if unlabelled := sum(one.unlabelled for one in loaded.values() if one is not None):
            log.warning("%s: skipped %d rows without a label.", name, unlabelled)
        for one in loaded.values():
            if one is not None and one.wordless:
                log.warning(
                    "%s: skipped %d rows without a word of %s, the first is row %d.",
                    *(name, len(one.wordless), one.origin, one.wordless[0]),
                )
        if most is not None and "train" in splits:
            # By name, so that a task has the same examples alone and among others.
            splits["train"] = capped(splits["train"], most, [self.seed, *name.encode()])
        return EncodedTask(
            name=name,
            task=task,
            splits=splits,
            truncated=truncated,
            padding_token=self.tokenizer.pad_token_id,
        )

    def encoded_splits(self, name: str, task: Task) -> dict[str, EncodedSplit | None]:
        """Return the splits that are read as a whole; None for those that there are not."""
        names = _SPLITS[1:] if is_streamed(task) else _SPLITS
        return {split: self.encoded_split(name, task, split) for split in names}

    def used(self, name: str, task: Task, split: str) -> tuple[int, Sequence[int], Rows | None]:
        """Return how many rows have no label, which have no word, and those that are used.

        Rows without a word are numbered as in the file.

        Raises:
            ValueError: if no row has a word.
        """
        languages = wanted_languages(task, split, self.language)
        rows = task.source.load(
            split, mirror=self.mirror, languages=languages, columns=task.columns
        )
        if rows is None:
            return 0, [], None
        wordless = wordless_rows(rows, task, self.tokenizer)
        if (others := without(rows, wordless, "wordless")) is None:
            columns = " or ".join(repr(column) for column in task.text)
            raise ValueError(
                f"All {len(wordless):,} rows of {rows.origin}, of the task {name!r}, are "
                f"without a word in column {columns}."
            )
        unlabelled, used = used_rows(others, task, split, self.language)
        return unlabelled, wordless, used

    def encoded_split(self, name: str, task: Task, split: str) -> EncodedSplit | None:
        """Return a split; None if there is none, or no row of it has a label."""
        unlabelled, wordless, rows = self.used(name, task, split)
        if rows is None:
            return None
        table, truncated = encoded_rows(
            task, rows, self.tokenizer, max_length=self.max_length, folder=self.cache
        )
        return EncodedSplit(table, truncated, unlabelled, wordless, rows.origin)
