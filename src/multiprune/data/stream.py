"""An endless stream of encoded blocks of a corpus, which can be resumed."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from multiprune.child import end_with_parent
from multiprune.data.cache import encoding_key, stored
from multiprune.data.pieces import CorpusError
from multiprune.data.streamed_source import StreamedSource, is_streamed
from multiprune.quiet import quiet_libraries
from multiprune.tasks.masked_language import MaskedLanguage
from multiprune.tasks.packing import packed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from multiprune.data.batches import EncodedTask
    from multiprune.data.pieces import Piece
    from multiprune.data.streamed_source import Corpus
    from multiprune.tasks.packing import Packing
    from multiprune.tasks.task import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PieceEncoder:
    """Tokenizes and packs pieces, and keeps what comes of each in the cache, for all runs.

    Attributes:
        packing: what a block is made of.
        tokenizer: that of the encoder.
        max_length: of a block, in tokens.
        folder: of all pieces that were encoded in this way.
    """

    packing: Packing
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    folder: Path

    def __call__(self, piece: Piece) -> Dataset:
        """Return the blocks of a piece, on disk; encode them if they are not there yet.

        Raises:
            CorpusError: if the piece cannot be read as it should be.
        """
        return stored(
            self._place(piece),
            lambda: [(packed(piece.texts(), self.packing, self.tokenizer, self.max_length)[0], 0)],
        )[0]

    def has(self, piece: Piece) -> bool:
        """Whether the blocks of a piece are there."""
        return self._place(piece).is_dir()

    def _place(self, piece: Piece) -> Path:
        return self.folder / piece.fingerprint[:32]


class Ahead:
    """Encodes pieces, in processes beside the one that trains those that will be needed next.

    Processes rather than threads: a third of the time goes to Python code, which would hold up the
    training. They start with the first piece that is not in the cache, and end with ``close``, or
    when this process does.

    Args:
        encoder: what encodes a piece.
        workers: how many processes; without any, nothing is encoded ahead.
    """

    def __init__(self, encoder: PieceEncoder, workers: int) -> None:
        self.encoder, self.workers = encoder, workers
        self._asked: dict[Piece, Future[None]] = {}
        self._pool: ProcessPoolExecutor | None = None

    def encoded(
        self, pieces: Sequence[Piece], behind: Sequence[Piece], turn: tuple[int, int]
    ) -> list[Dataset]:
        """Return the blocks of each piece, and have those ``behind`` encoded.

        Of several ranks that need the same, each begins with others: ``turn`` is the rank, and of
        how many.

        Raises:
            CorpusError: if a piece cannot be read as it should be.
            ChildProcessError: if a process was ended from outside.
        """
        ordered, later = (_rotated(one, turn) for one in (pieces, behind))
        try:
            if self.workers:
                before, self._asked = self._asked, {}
                # In a small corpus, a group may be the next one too.
                for piece in dict.fromkeys([*ordered, *later]):
                    if piece in before:
                        self._asked[piece] = before[piece]
                    elif not self.encoder.has(piece):
                        self._asked[piece] = self._started().submit(_encode, piece)
            for piece in self._asked.keys() & {*pieces}:
                self._asked[piece].result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"One of {self.workers} tokenization `workers` was killed (out of memory?)."
            ) from error
        found = {piece: self.encoder(piece) for piece in ordered}
        return [found[piece] for piece in pieces]

    def close(self) -> None:
        """End all processes, after what each has been given."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._asked, self._pool = {}, None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # A process that is forked would inherit the threads' locks of torch and tokenizers.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context, _begin, (self.encoder,))
        return self._pool


def _rotated(pieces: Sequence[Piece], turn: tuple[int, int]) -> list[Piece]:
    rank, ranks = turn
    start = len(pieces) * rank // ranks
    return [*pieces[start:], *pieces[:start]]


# What a worker encodes with; its own, as each is a process.
_worker: list[PieceEncoder] = []


def _begin(encoder: PieceEncoder) -> None:
    """Make this process a worker, which ends when the process that started it does."""
    # Ctrl-C reaches all processes of a terminal; the one that trains ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    quiet_libraries()
    end_with_parent()
    _worker.append(encoder)


def _encode(piece: Piece) -> None:
    _worker[0](piece)


@dataclass(frozen=True)
class Place:
    """Where in a stream a group of pieces begins.

    Attributes:
        group: its number, from 0 on over all passes through the corpus.
        first: number of its first block in the stream.
        empty: how many pieces before it, in the same pass, hold no text.
    """

    group: int = 0
    first: int = 0
    empty: int = 0


@dataclass(frozen=True)
class Group:
    """Pieces whose blocks are shuffled together: where it and the next begin, blocks, and order."""

    place: Place
    behind: Place
    table: Dataset
    order: NDArray[np.int64]


class EncodedStream:
    """The blocks of a corpus, encoded as they are read: a table without end.

    Which block has number ``n`` depends on nothing but corpus, encoder and seed. Each time that all
    pieces were read they are shuffled anew; as many as the source's ``buffer`` are a group, whose
    blocks are shuffled together. One group is held at a time, and the next is encoded ahead. Blocks
    are found by reading on from the group of those before, or else from the beginning.

    Args:
        corpus: what is read.
        encoder: of its pieces.
        seed: of all shuffling.
        least: blocks that all pieces together must give: a batch.
        turn: rank and number of ranks, which begin with different pieces of a group.
    """

    def __init__(
        self,
        corpus: Corpus,
        encoder: PieceEncoder,
        *,
        seed: Sequence[int],
        least: int,
        turn: tuple[int, int] = (0, 1),
    ) -> None:
        self.corpus, self.ahead = corpus, Ahead(encoder, corpus.source.workers)
        self.seed, self.least, self.turn = list(seed), least, turn
        self._groups = -(-len(corpus.pieces) // corpus.source.buffer)
        self._start = Place()
        self._group: Group | None = None

    def __getitem__(self, numbers: Sequence[int]) -> dict[str, list[Any]]:
        """Return the columns of blocks, in the order of ``numbers``.

        Raises:
            CorpusError: if the corpus cannot be read, or gives fewer blocks than ``least``.
        """
        ordered, places = np.unique(numbers, return_inverse=True)
        columns: dict[str, list[Any]] = {}
        while len(ordered):
            group = self._reach(int(ordered[0]))
            here, ordered = np.split(ordered, [np.searchsorted(ordered, group.behind.first)])
            rows = group.order[here - group.place.first]
            for key, values in group.table[rows.tolist()].items():
                columns.setdefault(key, []).extend(values)
        return {key: [values[place] for place in places] for key, values in columns.items()}

    @property
    def held(self) -> range:
        """The numbers of the blocks of the group that was read last."""
        group = self._group
        return range(0) if group is None else range(group.place.first, group.behind.first)

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that continues must know so as not to begin with the first piece."""
        place = self._start if self._group is None else self._group.place
        return {"corpus": self.corpus.fingerprint, "place": asdict(place)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the group that ``state_dict`` told.

        Raises:
            CorpusError: if that was of another corpus.
        """
        if state["corpus"] != self.corpus.fingerprint:
            raise CorpusError(
                f"Files of {self.corpus.origin} were added, removed or resized since the run "
                "began: restore them, or start a new run."
            )
        self._start, self._group = Place(**state["place"]), None

    def _reach(self, number: int) -> Group:
        group = self._group or self._read(self._start)
        if number < group.place.first:
            group = self._read(Place())
        while number >= group.behind.first:
            group = self._read(group.behind)
        return group

    def _read(self, place: Place) -> Group:
        from datasets import concatenate_datasets

        pieces = self._pieces(place.group)
        found = self.ahead.encoded(pieces, self._pieces(place.group + 1), self.turn)
        filled = [table for table in found if len(table)]
        generator = np.random.default_rng([*self.seed, 1, *divmod(place.group, self._groups)])
        order = generator.permutation(sum(map(len, filled)))
        empty = place.empty + len(found) - len(filled)
        behind = Place(place.group + 1, place.first + len(order), empty)
        if behind.group % self._groups == 0:
            self._end_pass(behind)
            behind = replace(behind, empty=0)
        self._group = Group(place, behind, concatenate_datasets(filled or found), order)
        return self._group

    def _end_pass(self, end: Place) -> None:
        if end.first < self.least:
            raise CorpusError(
                f"{self.corpus.origin} has too little text: it gives {end.first:,} blocks, "
                f"and a batch needs {self.least:,}."
            )
        if end.empty and end.group == self._groups:
            log.warning(
                "%s: %d of %d pieces hold no text.",
                self.corpus.origin, end.empty, len(self.corpus.pieces),
            )  # fmt: skip

    def _pieces(self, group: int) -> list[Piece]:
        passes, group = divmod(group, self._groups)
        generator = np.random.default_rng([*self.seed, 0, passes])
        order = generator.permutation(len(self.corpus.pieces))
        buffer = self.corpus.source.buffer
        return [self.corpus.pieces[one] for one in order[group * buffer :][:buffer]]


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
        # By name, so that a task is read in the same order alone and among others.
        seeds = [seed, *encoded.name.encode()]
        stream = EncodedStream(self.corpus, self.encoder, seed=seeds, least=batch_size, turn=turn)
        return replace(encoded, stream=stream)


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
            place = folder / f"streamed-{encoding_key(task, 'pieces', tokenizer, max_length)}"
            encoder = PieceEncoder(task.packing, tokenizer, max_length, place)
            found[name] = StreamedTask(task.source.corpus(task.text[0], mirror), encoder)
    return found


def check_streams(tasks: Mapping[str, Task], cap: Iterable[str]) -> None:
    """Raise a ValueError if a task cannot be streamed as its source is, or is capped beside."""
    for name, task in tasks.items():
        if is_streamed(task) and not isinstance(task, MaskedLanguage):
            raise ValueError(
                f"Only masked language modelling can stream its source, but {name} is a "
                f"{type(task).__name__}."
            )
        if is_streamed(task) and name in cap:
            raise ValueError(
                f"`data.cap` must name tasks whose examples are known, but {name} is streamed: its "
                "`source` has `examples_per_epoch`."
            )
