"""A corpus that is streamed while an encoder trains on it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.arguments import check_number
from multiprune.data.pieces import Piece, files_of, pieces_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from multiprune.tasks.columns import Columns
    from multiprune.tasks.rows import Rows, Source
    from multiprune.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class StreamedSource:
    """Training texts of files that are never read as a whole; other splits of another source.

    Only masked language modelling reads it. How many blocks there are is not known before all are
    read: an epoch of training is as many as are stated here, and after it the stream goes on.

    Attributes:
        files: patterns, as in ``corpus/*.txt`` or ``hf://datasets/owner/name/**/*.parquet``. Files
            that end in ``.parquet`` have the texts in a column, others in lines.
        mirror: patterns below the mirror's root, which are read if ``files`` is None.
        examples_per_epoch: how many blocks an epoch counts.
        evaluation: where the validation and test splits come from.
        piece_size: so many bytes of text are read and tokenized at a time. A row group that is
            larger is read for each of its parts.
        buffer: so many pieces are shuffled together.
        workers: processes that tokenize ahead, on each rank; 0 tokenizes between two batches.
    """

    files: Sequence[str] | None = None
    mirror: Sequence[str] | None = None
    examples_per_epoch: int
    evaluation: Source
    piece_size: int = 1 << 21
    buffer: int = 4
    workers: int = 0

    def __post_init__(self) -> None:
        sizes = {
            "examples_per_epoch": self.examples_per_epoch,
            "piece_size": self.piece_size,
            "buffer": self.buffer,
        }
        for name, size in sizes.items():
            check_number(name, size, at_least=1, whole=True)
        check_number("workers", self.workers, at_least=0, whole=True)
        if isinstance(self._patterns, str) or not self._patterns:
            raise ValueError(
                "`files`, or `mirror` in its place, must be a list of patterns, but is "
                f"{self._patterns!r}."
            )

    @property
    def _patterns(self) -> Sequence[str]:
        return (self.mirror or ()) if self.files is None else self.files

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,
        languages: Sequence[str] | None = None,
        columns: Columns | None = None,
    ) -> Rows | None:
        """Return the rows of another split than that for training.

        Raises:
            ValueError: if that is asked for.
        """
        if split == "train":
            raise ValueError(
                f"{', '.join(self._patterns)} can only be streamed: use it as the `source` of "
                "a task, for training."
            )
        return self.evaluation.load(split, mirror=mirror, languages=languages, columns=columns)

    def corpus(self, column: str, mirror: Path | None) -> Corpus:
        """Find the pieces, without reading any; ``column`` has the texts of parquet files.

        Raises:
            FileNotFoundError: if no file fits a pattern.
            ValueError: if files cannot be reached, or there is nothing in them.
        """
        patterns = [*self._patterns]
        if self.files is None:
            if mirror is None:
                raise ValueError(
                    f"`data.mirror` must be set for {', '.join(patterns)}, or `source.files` say "
                    "what to read in their place."
                )
            patterns = [str(mirror.expanduser() / pattern) for pattern in patterns]
        files = [file for pattern in patterns for file in files_of(pattern)]
        pieces = pieces_of(files, column=column, size=self.piece_size)
        origin = ", ".join(patterns)
        if not pieces:
            raise ValueError(f"The corpus {origin} has no text.")
        # Without folders and times: a run may be resumed from a copy of the corpus.
        listed = [[file.name.rpartition("/")[2], file.size] for file in files]
        digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        return Corpus(self, pieces, origin, digest)


@dataclass(frozen=True)
class Corpus:
    """What a source has found.

    Attributes:
        source: that says how the pieces are read.
        pieces: in the order of the files.
        origin: where they are.
        fingerprint: of the names and sizes of the files.
    """

    source: StreamedSource
    pieces: Sequence[Piece]
    origin: str
    fingerprint: str


def is_streamed(task: Task) -> bool:
    """Whether the training examples of a task are streamed."""
    return isinstance(task.source, StreamedSource)
