"""A pool of processes, one per job, in which a crash does not affect other jobs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from multiprune.child import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from multiprocessing.context import ForkServerProcess
    from pathlib import Path

Item = TypeVar("Item")
Value = TypeVar("Value")
Observed = TypeVar("Observed", contravariant=True)

# Training ends after a whole batch, or while a checkpoint is being written.
_SECONDS_TO_STOP = 30.0


@dataclass(frozen=True)
class Died:
    """How a process ended that returned nothing."""

    exit_code: int

    def __str__(self) -> str:
        if self.exit_code >= 0:
            return f"ended with exit code {self.exit_code} and without a result"
        return f"was killed by {signal.Signals(-self.exit_code).name}"


class Observer(Protocol[Observed]):
    """Is told what becomes of the jobs, by their positions."""

    def started(self, position: int) -> None:
        """A job has got a process."""

    def ended(self, position: int, outcome: Observed | Died) -> None:
        """The process of a job has ended."""


def warm_up(preload: Sequence[str], *, environment: Mapping[str, str]) -> None:
    """Start the server that all jobs are forked from, which imports some modules once.

    That takes as long as one job would need for its imports, and does not wait for it. Nothing in
    them may touch a GPU: CUDA cannot be used after a fork.

    Args:
        preload: names of the modules.
        environment: what libraries such as OpenMP read when they are loaded, which is in the
            server.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*preload])
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        from multiprocessing.forkserver import ensure_running

        ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def run_each(
    function: Callable[[Item], Value],
    items: Iterable[tuple[Item, Path]],
    *,
    workers: Sequence[Mapping[str, str]],
    observer: Observer[Value],
) -> list[Value | Died]:
    """Call ``function`` on every item, each in a process of its own, and return what comes back.

    Args:
        function: importable by name; what it takes and returns can be pickled.
        items: by the order in which they are begun, and in which results are returned, each with
            the file that its process prints to, after what is there. They are asked for one by one
            while the workers are busy, which need not wait for them.
        workers: one for each process that runs at a time: what its environment holds, which no
            other process has meanwhile.
        observer: is told of what happens.

    An exception here, such as KeyboardInterrupt, stops all processes first.
    """
    source = enumerate(items)
    upcoming: deque[tuple[int, tuple[Item, Path]]] = deque(islice(source, 1))
    free = deque(workers)
    running: list[_Process[Value]] = []
    outcomes: dict[int, Value | Died] = {}
    with _stopped_at_the_end(running):
        while upcoming or running:
            while upcoming and free:
                position, (item, output) = upcoming.popleft()
                process = _Process[Value](position, free.popleft())
                process.start(function, item, output)
                running.append(process)
                observer.started(position)
                upcoming.extend(islice(source, 0 if upcoming else 1))
            more = list(islice(source, 1))
            upcoming.extend(more)
            waited_for = [one for process in running for one in process.waited_for()]
            wait(waited_for, timeout=0 if more else None)
            for process in [one for one in running if one.has_ended()]:
                running.remove(process)
                free.append(process.environment)
                outcomes[process.position] = process.outcome()
                observer.ended(process.position, process.outcome())
    return [outcomes[position] for position in range(len(outcomes))]


@dataclass
class _Process(Generic[Value]):
    position: int
    environment: Mapping[str, str]
    _received: list[Value] = field(default_factory=list)
    _is_open: bool = True

    def start(self, function: Callable[[Item], Value], item: Item, output: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        self._connection, theirs = context.Pipe(duplex=False)
        self.process: ForkServerProcess = context.Process(
            target=_serve, args=(function, item, self.environment, output, theirs)
        )
        self.process.start()
        theirs.close()

    def waited_for(self) -> list[Connection | int]:
        # A result that does not fit into the pipe keeps its process alive until it is received.
        return [self.process.sentinel, *([self._connection] if self._is_open else [])]

    def has_ended(self) -> bool:
        # Asked first: what it has sent by its end is received below.
        has_ended = self.process.exitcode is not None
        if self._is_open and self._connection.poll():
            with contextlib.suppress(EOFError):
                self._received.append(self._connection.recv())
            self._connection.close()
            self._is_open = False
        return has_ended

    def outcome(self) -> Value | Died:
        assert self.process.exitcode is not None
        return self._received[0] if self._received else Died(self.process.exitcode)


@contextmanager
def _stopped_at_the_end(running: list[_Process[Value]]) -> Iterator[None]:
    try:
        yield
    finally:
        try:
            for one in running:
                one.process.terminate()
            deadline = time.monotonic() + _SECONDS_TO_STOP
            for one in running:
                one.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            # Also when somebody does not want to wait, and interrupts again.
            for one in running:
                one.process.kill()


def _serve(
    function: Callable[[Item], Value],
    item: Item,
    environment: Mapping[str, str],
    output: Path,
    connection: Connection,
) -> None:
    # Ctrl-C reaches every process of a terminal; who started this one passes it on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As `kill` would: what it has begun in turn is ended, too.
    end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    os.environ.update(environment)
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    connection.send(function(item))
