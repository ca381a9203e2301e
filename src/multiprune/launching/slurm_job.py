"""Inside a Slurm job: its output, and requeueing at the time limit."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import spawn
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import read_write

from multiprune.cores import openmp, usable_cores
from multiprune.launching.job import execute, failed
from multiprune.launching.slurm_client import ask
from multiprune.runs.status import StatusFile, read_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import FrameType

    from multiprune.launching.job import Job

OUTPUT = "output.log"

#: Sent by Slurm some time before the limit, and before a preemption where that is configured.
SIGNAL = signal.SIGUSR2

#: By so much Slurm, which looks at its limits once a minute, may send it early.
SECONDS_EARLY = 60

_SECONDS_TO_REPORT = 30


@dataclass(frozen=True)
class Interpreter:
    """What a process needs to find what the one that submitted it has imported."""

    preparation: dict[str, Any]

    @classmethod
    def here(cls) -> Interpreter:
        """Note what multiprocessing would tell a process that it starts from this one."""
        told = spawn.get_preparation_data("job")
        wanted = ("sys_path", "sys_argv", "dir", "init_main_from_name", "init_main_from_path")
        return cls({key: told[key] for key in wanted if key in told})

    def restore(self) -> None:
        """Make this process one of those."""
        spawn.prepare(self.preparation)


@dataclass(frozen=True)
class Limit:
    """How long a job may run, and how long before that it is told to stop; in seconds."""

    seconds: int
    notice: int


def execute_in_slurm(job: bytes, interpreter: Interpreter, limit: Limit) -> bytes:
    """Run a pickled job in this process, one of those that ``srun`` has started for it.

    When Slurm says that the time is up, the job is told to stop as by SIGTERM, and is queued again
    to go on from where it was. If it got no step further in all its time, it has failed.

    Returns:
        The pickled ``JobReturn``: what the application's own file defines has the same name here as
        where it was submitted.
    """
    begun = time.monotonic()
    stop = _Stop()
    # The package that has started this one takes no part in how a job ends.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    signal.signal(SIGNAL, stop)
    # Before anything that reads it is imported.
    os.environ.update(openmp(own_cores(os.environ, usable_cores()), os.environ))
    interpreter.restore()
    unpickled: Job = pickle.loads(job)
    return pickle.dumps(_execute(unpickled, _Clock(begun, limit), stop))


def own_cores(environment: Mapping[str, str], usable: int) -> int:
    """Return how many of a node's ``usable`` cores are those of one of a job's processes there."""
    if "SLURM_CPUS_PER_TASK" in environment:
        return min(usable, int(environment["SLURM_CPUS_PER_TASK"]))
    on_node = int(environment.get("SLURM_CPUS_ON_NODE", usable))
    return min(usable, on_node // int(environment.get("SLURM_NTASKS_PER_NODE", 1)))


def _execute(job: Job, clock: _Clock, stop: _Stop) -> JobReturn:
    rank = int(os.environ.get("SLURM_PROCID", 0))
    if rank > 0:
        return _execute_beside(job, rank, stop, clock.limit)
    first_step = _step(job)
    with _printing_into(job.folder / OUTPUT):
        try:
            return execute(job)
        except SystemExit:
            if not stop.is_asked_for:
                raise
            if clock.is_out_of_time() and _step(job) <= first_step:
                return _out_of_time(job, clock.limit)
            try:
                requeue(job)
            except NotQueuedAgainError as error:
                return failed(job, error)
            raise


def _execute_beside(job: Job, rank: int, stop: _Stop, limit: Limit) -> JobReturn:
    """Run a job in one of its further processes; ``srun`` ends all if this one ends badly."""
    with read_write(job.config.hydra):
        # The first process writes it.
        job.config.hydra.output_subdir = None
    patience = _SECONDS_TO_REPORT
    try:
        with _printing_into(job.folder / f"output.{rank}.log"):
            returned = execute(job)
        if returned.status != JobStatus.FAILED:
            return returned
    except SystemExit:
        if stop.is_asked_for:
            patience = limit.notice
    # What is wrong, or that the job must be queued again, is for the first process to say.
    time.sleep(patience)
    raise SystemExit(1)


class NotQueuedAgainError(RuntimeError):
    """A job had to end before it was done, and Slurm will not run it again by itself."""


def requeue(job: Job) -> None:
    """Have Slurm run this job again, from its beginning; it will find what it left in its folder.

    Raises:
        NotQueuedAgainError: if Slurm refuses, or cannot be asked from this node.
    """
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    own = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    # Said before: Slurm ends this process at once.
    StatusFile(job.folder).wait(
        reason="Its time limit was reached; it is requeued and will continue.", queued=True
    )
    print(f"Slurm requeues this job, {own}.", flush=True)
    try:
        ask("scontrol", "requeue", own)
    except OSError as error:
        problem = (
            f"Its time limit was reached, and it could not be requeued: {error} Start the "
            "sweep's command again to continue it."
        )
        StatusFile(job.folder).lose(problem)
        print(problem, flush=True)
        raise NotQueuedAgainError(problem) from error


class _Stop:
    def __init__(self) -> None:
        self.is_asked_for = False

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.is_asked_for:
            return
        self.is_asked_for = True
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            raise SystemExit(128 + number)
        # A run knows how to end by that.
        os.kill(os.getpid(), signal.SIGTERM)


@dataclass(frozen=True)
class _Clock:
    begun: float
    limit: Limit

    def is_out_of_time(self) -> bool:
        """Whether a signal by now may be that of the limit: an earlier one is of a preemption."""
        earliest = self.limit.seconds - self.limit.notice - SECONDS_EARLY
        return time.monotonic() - self.begun >= earliest


def _out_of_time(job: Job, limit: Limit) -> JobReturn:
    problem = (
        f"A job must get further within `hydra.launcher.time`, but after {limit.seconds // 60} min "
        f"is at step {_step(job)}, where it was before."
    )
    StatusFile(job.folder).overrule("failed", problem)
    return failed(job, RuntimeError(problem))


def _step(job: Job) -> int:
    try:
        status = read_status(job.folder)
    except ValueError:
        status = None
    return 0 if status is None else status.step


@contextmanager
def _printing_into(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    before = {number: os.dup(number) for number in (1, 2)}
    with file.open("a") as opened:
        for number in before:
            os.dup2(opened.fileno(), number)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        yield
    finally:
        for number, kept in before.items():
            os.dup2(kept, number)
            os.close(kept)
