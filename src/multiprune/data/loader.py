"""A data loader whose worker processes prefetch batches."""

from __future__ import annotations

import atexit
import io
import multiprocessing
import pickle
import signal
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from multiprune.child import end_with_parent
from multiprune.message import how_it_ended
from multiprune.tasks.shared_batch import SharedBatch
from multiprune.tasks.task import Batch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess


# Imported once, by the process that workers are forked from.
_PRELOADED = [
    *("__main__", "datasets", "multiprune.data.shared_texts", "multiprune.tasks.classification"),
    *("multiprune.tasks.masked_language", "multiprune.tasks.tagging"),
]

AnyBatch = TypeVar("AnyBatch", Batch, Batch | SharedBatch)
Made = TypeVar("Made", covariant=True)


class Texts(Protocol[Made]):
    """Encoded texts that batches are made of."""

    def batch(self, split: str, rows: Sequence[int], draw: Sequence[int] = ()) -> Made:
        """Collate the given rows of a split."""

    def for_worker(self) -> Texts[Made] | None:
        """Return what a worker makes the same batches of; None if only this process can."""


class Request(NamedTuple):
    """What a batch is made from: rows of a split of texts, and what its randomness depends on."""

    texts: str
    split: str
    rows: Sequence[int]
    draw: Sequence[int] = ()

    def batch(self, texts: Mapping[str, Texts[AnyBatch]]) -> AnyBatch:
        """Make the batch."""
        return texts[self.texts].batch(self.split, self.rows, self.draw)


@dataclass(frozen=True)
class Loader:
    """Makes batches in the order in which they are requested, whatever the number of workers.

    A batch depends on its request alone, never on the random state of a process. What is streamed
    is made by the process that asks: a stream is read at one place, which a checkpoint tells, and
    has processes of its own that tokenize ahead.

    Attributes:
        workers: processes that make batches; 0 makes each when it is asked for.
        is_pinned: whether batches lie in pinned memory, from where CUDA copies asynchronously.
    """

    workers: int = 0
    is_pinned: bool = False

    def batches(
        self, texts: Mapping[str, Texts[AnyBatch]], requests: Iterable[Request]
    ) -> Iterator[AnyBatch]:
        """Yield the requested batches of texts by name; workers end with the iteration.

        Raises:
            ChildProcessError: if a worker was ended from outside.
        """
        made = self._ahead(texts, requests) if self.workers else (r.batch(texts) for r in requests)
        for batch in made:
            yield batch.pin_memory() if self.is_pinned else batch

    def _ahead(
        self, texts: Mapping[str, Texts[AnyBatch]], requests: Iterable[Request]
    ) -> Iterator[AnyBatch]:
        asked: deque[Request] = deque()

        def noted() -> Iterator[Request]:
            for request in requests:
                asked.append(request)
                yield request

        loader = DataLoader(
            _Batches(texts),
            sampler=noted(),
            batch_size=None,
            num_workers=self.workers,
            worker_init_fn=_begin,
            multiprocessing_context=_context(),
            # Else it would take a number of the random state of the model.
            generator=torch.Generator(),
        )
        with _signals_blocked():
            parcels: Any = iter(loader)
        kill = partial(_kill, parcels._workers)
        # Python and torch would wait at exit for workers that do not hear what they are told.
        atexit.register(kill)
        try:
            while (parcel := _next(parcels)) is not None:
                request = asked.popleft()
                yield pickle.loads(parcel) if parcel else request.batch(texts)
        finally:
            atexit.unregister(kill)
            kill()


def _kill(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()


def check_sendable(texts: Mapping[str, Texts[Any]]) -> None:
    """Raise a ValueError if texts cannot be sent to workers."""
    for name, one in texts.items():
        try:
            pickle.dumps(one.for_worker())
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"`data.workers` must be 0 for tasks that cannot be pickled, as {name}: {error}."
            ) from error


class _Batches(Dataset[bytes]):
    """What a worker makes: a pickled batch for each request, or nothing where it cannot."""

    def __init__(self, texts: Mapping[str, Texts[Any]]) -> None:
        sent = {name: one.for_worker() for name, one in texts.items()}
        self.texts = {name: one for name, one in sent.items() if one is not None}

    @override
    def __getitem__(self, request: Request) -> bytes:
        if request.texts not in self.texts:
            return b""
        parcel = io.BytesIO()
        _Pickler(parcel, protocol=5).dump(request.batch(self.texts))
        return parcel.getvalue()


class _Pickler(pickle.Pickler):
    """Sends tensors as bytes: small ones take a third of the time of torch's shared memory."""

    @override
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented


def _next(parcels: Any) -> bytes | None:
    """Return the next parcel, None behind the last one."""
    try:
        return next(parcels, None)
    except RuntimeError as error:
        workers: Sequence[BaseProcess] = parcels._workers
        for number, worker in enumerate(workers, start=1):
            if code := worker.exitcode:
                raise ChildProcessError(
                    f"Worker {number} of {len(workers)} of `data.workers` (process {worker.pid}) "
                    f"{how_it_ended(code)}: start the same command again, with the same output "
                    "folder, to resume the run."
                ) from error
        raise


def _begin(_: int) -> None:
    """Have a worker end when the process that reads its batches does."""
    end_with_parent()


def _context() -> BaseContext:
    # A process that is forked from this one would inherit the threads' locks of torch and
    # tokenizers, and one that is spawned takes seconds to import what is imported here once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Start processes that neither Ctrl-C in a terminal nor a signal to all of a job ends.

    The process that trains has a step to end and to save, and ends them.
    """
    # Which unblocks them once it has started.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
