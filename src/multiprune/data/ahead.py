"""Pieces of a corpus encoded ahead of training, in processes beside it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING

from multiprune.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.synchronize import Event

    from multiprune.data.piece_encoder import PieceEncoder
    from multiprune.data.pieces import Piece


class Ahead:
    """Encodes the pieces that it is asked for, so that they are in the cache when they are needed.

    Processes rather than threads: a third of the time goes to Python code, which would hold up the
    training that runs beside. They start with the first piece that is not in the cache, and end
    with ``close``, or when this process does.

    Args:
        encoder: what encodes a piece.
        workers: how many processes; without any, nothing is encoded ahead.
    """

    def __init__(self, encoder: PieceEncoder, workers: int) -> None:
        self.encoder, self.workers = encoder, workers
        self._asked: dict[str, Future[None]] = {}
        self._pool: ProcessPoolExecutor | None = None
        self._stopped: Event | None = None

    def ask(self, pieces: Sequence[Piece]) -> None:
        """Encode these, in this order; they are all that will be waited for.

        Raises:
            ChildProcessError: if a process was ended from outside.
        """
        if not self.workers:
            return
        before, self._asked = self._asked, {}
        # In a small corpus, a group may be the next one too.
        for key, piece in {piece.fingerprint: piece for piece in pieces}.items():
            if key in before:
                self._asked[key] = before[key]
            elif not self.encoder.has(piece):
                with self._all_alive():
                    self._asked[key] = self._started().submit(_encode, piece)

    def wait(self, piece: Piece) -> None:
        """Wait for a piece, if it was asked for.

        Raises:
            CorpusError: if it cannot be read as it should be.
            ChildProcessError: if a process was ended from outside.
        """
        if (asked := self._asked.get(piece.fingerprint)) is None:
            return
        with self._all_alive():
            asked.result()

    def close(self) -> None:
        """End all processes, after the piece that each is at."""
        if self._pool is not None and self._stopped is not None:
            self._stopped.set()
            self._pool.shutdown(cancel_futures=True)
        self._asked, self._pool, self._stopped = {}, None, None

    @contextmanager
    def _all_alive(self) -> Iterator[None]:
        try:
            yield
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"The {self.workers} `workers` that tokenize ahead must go on, but one was ended "
                "from outside, as where memory is short."
            ) from error

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # A process that is forked would inherit the threads' locks of torch and tokenizers.
            context = multiprocessing.get_context("spawn")
            self._stopped = context.Event()
            self._pool = ProcessPoolExecutor(
                self.workers, context, _begin, (self.encoder, self._stopped)
            )
        return self._pool


# What a worker encodes with; its own, as each is a process.
_worker: list[tuple[PieceEncoder, Event]] = []


def _begin(encoder: PieceEncoder, stopped: Event) -> None:
    """Make this process a worker, which ends when the process that started it does."""
    # Ctrl-C reaches all processes of a terminal; the one that trains ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    quiet_libraries()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.append((encoder, stopped))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _encode(piece: Piece) -> None:
    encoder, stopped = _worker[0]
    if not stopped.is_set():
        encoder(piece)
