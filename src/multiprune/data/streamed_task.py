"""Tasks whose training examples are streamed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from multiprune.data.ahead import Ahead
from multiprune.data.piece_encoder import PieceEncoder, piece_encoder
from multiprune.data.stream import EncodedStream
from multiprune.data.streamed_source import Corpus, StreamedSource
from multiprune.tasks.masked_language import MaskedLanguage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from multiprune.data.batches import EncodedTask
    from multiprune.tasks.task import Task


@dataclass(frozen=True)
class StreamedTask:
    """The corpus of a task, and what encodes it."""

    corpus: Corpus
    encoder: PieceEncoder

    @property
    def examples_per_epoch(self) -> int:
        """How many blocks an epoch counts."""
        return self.corpus.source.examples_per_epoch

    def opened(
        self, encoded: EncodedTask, *, seed: int, batch_size: int, turn: tuple[int, int]
    ) -> EncodedTask:
        """Return the task with a stream to train on; ``turn`` is the rank, and of how many."""
        stream = EncodedStream(
            self.corpus,
            Ahead(self.encoder, self.corpus.source.workers),
            # By name, so that a task is read in the same order alone and among others.
            seed=[seed, *encoded.name.encode()],
            least=batch_size,
            turn=turn,
        )
        return replace(encoded, stream=stream)


def is_streamed(task: Task) -> bool:
    """Whether the training examples of a task are streamed."""
    return isinstance(task.source, StreamedSource)


def streamed_tasks(
    tasks: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    folder: Path,
    mirror: Path | None,
) -> dict[str, StreamedTask]:
    """Find the corpora of the tasks that are streamed; ``folder`` is the cache.

    Raises:
        FileNotFoundError: if there are no files.
        ValueError: if files cannot be reached, or are empty.
    """
    found = {}
    for name, task in tasks.items():
        if isinstance(task.source, StreamedSource) and isinstance(task, MaskedLanguage):
            encoder = piece_encoder(task, tokenizer, max_length=max_length, folder=folder)
            found[name] = StreamedTask(task.source.corpus(task.text[0], mirror), encoder)
    return found


def check_streams(tasks: Mapping[str, Task], cap: Iterable[str]) -> None:
    """Raise a ValueError if a task cannot be streamed as its source is, or is capped beside."""
    for name, task in tasks.items():
        if is_streamed(task) and not isinstance(task, MaskedLanguage):
            raise ValueError(
                "A streamed source must be that of masked language modelling, but is that of "
                f"{name}, a {type(task).__name__}."
            )
        if is_streamed(task) and name in cap:
            raise ValueError(
                f"`data.cap` must name tasks whose examples are known, but {name} is streamed: its "
                "`source` has `examples_per_epoch`."
            )
