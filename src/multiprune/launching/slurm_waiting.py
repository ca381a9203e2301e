"""Wait for Slurm jobs, and resubmit preempted ones."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from hydra.core.utils import JobStatus

from multiprune.launching.job import failed
from multiprune.launching.slurm_client import cancel, state_of
from multiprune.launching.slurm_job import NotQueuedAgainError
from multiprune.launching.slurm_queue import queue
from multiprune.runs.status import StatusFile, reason_unfinished

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra.core.utils import JobReturn

    from multiprune.launching.job import Job
    from multiprune.launching.slurm import Handed, Slurm
    from multiprune.launching.slurm_queue import Queued

log = logging.getLogger(__name__)

# What Slurm calls jobs that it has ended for reasons other than theirs, and does not run again.
_PUSHED_OUT = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL")


class Observer(Protocol):
    """Is told what becomes of the jobs, by their positions."""

    def started(self, position: int) -> None:
        """A job has begun."""

    def ended(self, position: int, outcome: JobReturn) -> None:
        """A job has ended."""


class Waiting:
    """Waits until Slurm has done with some jobs.

    Args:
        handed: those to wait for, by their positions in ``jobs``.
        jobs: all jobs.
        slurm: takes those again that were pushed out.
        resubmit: how often, each.
        seconds: between two looks.
        observer: is told of what happens.
    """

    def __init__(
        self,
        handed: Mapping[int, Handed],
        jobs: Sequence[Job],
        *,
        slurm: Slurm,
        resubmit: int,
        seconds: float,
        observer: Observer,
    ) -> None:
        self._handed, self._jobs = dict(handed), jobs
        self._slurm, self._resubmit, self._seconds = slurm, resubmit, seconds
        self._observer = observer
        self._again: Counter[int] = Counter()
        self._returned: dict[int, JobReturn] = {}
        self._begun: set[int] = set()
        self._missing_since: dict[int, float] = {}
        self._is_silent = False

    def returns(self) -> dict[int, JobReturn]:
        """Return what became of each job, by its position, when all have ended."""
        while True:
            known = self._ask()
            for position in self._left():
                if (outcome := self._outcome(position, known)) is not None:
                    self._returned[position] = outcome
                    self._observer.ended(position, outcome)
            if not self._left():
                return self._returned
            time.sleep(self._seconds)

    def arrays(self) -> list[str]:
        """Return what Slurm calls the arrays of the jobs that have not ended."""
        return sorted({self._handed[one].id.partition("_")[0] for one in self._left()})

    def cancel(self, reason: str) -> None:
        """End the jobs that have not ended."""
        try:
            cancel(self._handed[one].id for one in self._left())
        except OSError as error:
            log.warning("%s: `scancel %s`", error, " ".join(self.arrays()))
            return
        for position in self._left():
            StatusFile(self._jobs[position].folder).lose(reason)

    def _left(self) -> list[int]:
        return [one for one in self._handed if one not in self._returned]

    def _ask(self) -> Mapping[str, Queued] | None:
        try:
            known = queue()
        except OSError as error:
            # The jobs go on without us, and without Slurm's controller.
            if not self._is_silent:
                log.warning("%s", error)
            self._is_silent = True
            return None
        self._is_silent = False
        return known

    def _outcome(self, position: int, known: Mapping[str, Queued] | None) -> JobReturn | None:
        handed, job = self._handed[position], self._jobs[position]
        queued = None if known is None else known.get(handed.id)
        if queued is not None and queued.runs and position not in self._begun:
            self._begun.add(position)
            self._observer.started(position)
        if (outcome := handed.returned(job)) is not None:
            is_cut_off = outcome.status == JobStatus.FAILED and isinstance(
                outcome._return_value, NotQueuedAgainError
            )
            return None if is_cut_off and self._hand_over_again(position) else outcome
        if known is None or queued is not None:
            return None
        since = self._missing_since.setdefault(position, time.monotonic())
        # A file may show later than what Slurm says, on a file system that is shared.
        if time.monotonic() - since < 2 * self._seconds:
            return None
        if (finished := job.finished_before()) is not None:
            return finished
        if state_of(handed.id) in _PUSHED_OUT and self._hand_over_again(position):
            return None
        return _without_result(job, handed)

    def _hand_over_again(self, position: int) -> bool:
        """Have Slurm go on with a job, unless that was done often enough; return whether so."""
        if self._again[position] == self._resubmit:
            return False
        before = self._handed[position]
        try:
            (self._handed[position],) = self._slurm.submit([self._jobs[position]])
        except ValueError as error:
            log.warning("%s", error)
            return False
        self._again[position] += 1
        self._begun.discard(position)
        self._missing_since.pop(position, None)
        log.info(
            "Slurm preempted %s: resubmitted as %s (%d of %d times).",
            before.id,
            self._handed[position].id,
            self._again[position],
            self._resubmit,
        )
        return True


def _without_result(job: Job, handed: Handed) -> JobReturn:
    StatusFile(job.folder).lose(f"Slurm has ended the job {handed.id}, see {handed.paths.stdout}.")
    reason = reason_unfinished(job.folder) or "it never began"
    return failed(job, RuntimeError(f"The job {handed.id} has no result: {reason}"))
