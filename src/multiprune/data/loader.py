"""Batches made in worker processes, ahead of the model that reads them."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from multiprune.message import how_it_ended

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess

    from multiprune.data.batches import EncodedTask
    from multiprune.tasks.task import Batch


class Request(NamedTuple):
    """What a batch is made from: rows of a split of a task, and what its randomness depends on."""

    task: str
    split: str
    rows: Sequence[int]
    draw: Sequence[int] = ()

    def batch(self, tasks: Mapping[str, EncodedTask]) -> Batch:
        """Make the batch."""
        return tasks[self.task].batch(self.split, self.rows, self.draw)


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
        self, tasks: Mapping[str, EncodedTask], requests: Iterable[Request]
    ) -> Iterator[Batch]:
        """Yield the requested batches; workers end with the iteration.

        Raises:
            ChildProcessError: if a worker was ended from outside.
        """
        made = self._ahead(tasks, requests) if self.workers else (r.batch(tasks) for r in requests)
        for batch in made:
            yield batch.pin_memory() if self.is_pinned else batch

    def _ahead(
        self, tasks: Mapping[str, EncodedTask], requests: Iterable[Request]
    ) -> Iterator[Batch]:
        asked: deque[Request] = deque()

        def noted() -> Iterator[Request]:
            for request in requests:
                asked.append(request)
                yield request

        loader = DataLoader(
            _Batches(tasks),
            sampler=noted(),
            batch_size=None,
            num_workers=self.workers,
            worker_init_fn=_begin,
            multiprocessing_context=_context(tasks),
            # Else it would take a number of the random state of the model.
            generator=torch.Generator(),
        )
        with _signals_blocked():
            parcels: Any = iter(loader)
        while (parcel := _next(parcels)) is not None:
            request = asked.popleft()
            yield pickle.loads(parcel) if parcel else request.batch(tasks)


def check_sendable(tasks: Mapping[str, EncodedTask]) -> None:
    """Raise a ValueError if a task cannot be sent to workers."""
    for name, one in tasks.items():
        try:
            pickle.dumps(_sent(one))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"`data.workers` must be 0 for tasks that cannot be pickled, as {name}: {error}."
            ) from error


def _sent(encoded: EncodedTask) -> EncodedTask:
    """Return what batches are made from; splits are sent by the file that they are mapped from."""
    task = copy(encoded.task)
    # May hold anything, such as functions without a name.
    task.source, task.metrics = None, {}  # type: ignore[assignment]
    return replace(encoded, task=task, evaluated={})


class _Batches(Dataset[bytes]):
    """What a worker makes: a pickled batch for each request, or nothing where that is streamed."""

    def __init__(self, tasks: Mapping[str, EncodedTask]) -> None:
        self.tasks = {name: _sent(one) for name, one in tasks.items() if one.stream is None}

    @override
    def __getitem__(self, request: Request) -> bytes:
        if request.task not in self.tasks:
            return b""
        parcel = io.BytesIO()
        _Pickler(parcel, protocol=5).dump(request.batch(self.tasks))
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
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # Not the process that it was forked from, which torch watches.
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)


def _context(tasks: Mapping[str, EncodedTask]) -> BaseContext:
    # A process that is forked from this one would inherit the threads' locks of torch and
    # tokenizers, and one that is spawned takes seconds to import what is imported here once.
    context = multiprocessing.get_context("forkserver")
    modules = {type(one.task).__module__ for one in tasks.values()}
    context.set_forkserver_preload(["__main__", "datasets", __name__, *sorted(modules)])
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
