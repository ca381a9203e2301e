"""Jobs of a sweep in Slurm's hands, from without: handing them over, and waiting for them.

All that is known of them lies in the sweep's folder, so that another process can go on waiting:
``.slurm/NUMBER/`` holds what was submitted together, named in each job's comment in the queue.
"""

from __future__ import annotations

import json
import logging
import pickle
import time
from dataclasses import dataclass
from pathlib import Path
from subprocess import CalledProcessError
from typing import TYPE_CHECKING, Any, Protocol

from submitit.core.utils import JobPaths
from submitit.slurm.slurm import SlurmExecutor

from multiprune.launching.job import failed
from multiprune.launching.slurm_job import Interpreter, Limit, execute_in_slurm
from multiprune.launching.slurm_queue import last_line, queue
from multiprune.status import StatusFile, reason_unfinished

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra.core.utils import JobReturn

    from multiprune.launching.job import Job
    from multiprune.launching.slurm_queue import Queued

log = logging.getLogger(__name__)

SUBMISSIONS, JOBS = ".slurm", "jobs.json"


@dataclass(frozen=True)
class Handed:
    """A job that was handed over: the folder of its submission, and what Slurm calls it."""

    submission: Path
    id: str

    @property
    def paths(self) -> JobPaths:
        """Where the job's files are."""
        return JobPaths(self.submission, self.id)

    def returned(self, job: Job) -> JobReturn | None:
        """Return what the job has returned; None if it has not ended so far, or not so."""
        file = self.paths.result_pickle
        if not file.exists():
            return None
        outcome, value = pickle.loads(file.read_bytes())
        if outcome == "success":
            returned: JobReturn = pickle.loads(value)
            return returned
        return failed(job, RuntimeError(last_line(value)))


class Observer(Protocol):
    """Is told what becomes of the jobs, by their positions."""

    def started(self, position: int) -> None:
        """A job has begun."""

    def ended(self, position: int, outcome: JobReturn) -> None:
        """A job has ended."""


def submit(
    jobs: Sequence[Job], sweep: Path, *, limit: Limit, asked: Mapping[str, Any]
) -> list[Handed]:
    """Hand jobs over to Slurm, as one array.

    Args:
        jobs: at least one.
        sweep: the folder of the sweep.
        limit: how long each may run.
        asked: what submitit is to ask Slurm for.

    Raises:
        ValueError: if Slurm refuses, or what is asked for is unknown.
    """
    folder = _new_submission(sweep)
    notes = [{"folder": str(one.folder.resolve()), "overrides": one.overrides} for one in jobs]
    (folder / JOBS).write_text(json.dumps(notes, indent=2) + "\n")
    for job in jobs:
        job.wait(queued=True)
    interpreter = Interpreter.here()
    count = len(jobs)
    try:
        executor = SlurmExecutor(folder)
        executor.update_parameters(**asked, comment=str(folder), signal_delay_s=limit.notice)
        pickled = [pickle.dumps(job) for job in jobs]
        handed = executor.map_array(
            execute_in_slurm, pickled, [interpreter] * count, [limit] * count
        )
    except (CalledProcessError, RuntimeError, ValueError) as error:
        problem = next(iter(str(error).strip().splitlines()), "it does not say why")
        for job in jobs:
            StatusFile(job.folder).lose(problem)
        raise ValueError(f"Slurm must take the jobs, but: {problem}") from error
    return [Handed(folder, one.job_id) for one in handed]


def handed_before(jobs: Sequence[Job], sweep: Path) -> dict[int, Handed]:
    """Return which jobs an earlier start of the sweep has handed over and Slurm still has.

    Raises:
        ValueError: if one of them is another one's, by its overrides.
        OSError: if Slurm cannot be asked.
    """
    alive = {
        folder: (one, overrides)
        for one in queue().values()
        if one.submission.parent == (sweep / SUBMISSIONS).resolve()
        for folder, overrides in [_noted(one.submission, one.position)]
    }
    found = {}
    for position, job in enumerate(jobs):
        if (known := alive.get(job.folder.resolve())) is None:
            continue
        queued, overrides = known
        if overrides != job.overrides:
            raise ValueError(
                f"The jobs of a sweep must be those that Slurm has of it, but in {job.folder} it "
                f"runs {' '.join(overrides)}: `scancel {queued.id}`, or take another folder."
            )
        found[position] = Handed(queued.submission, queued.id)
    return found


class Waiting:
    """Waits until Slurm has done with some jobs.

    Args:
        handed: those to wait for, by their positions in ``jobs``.
        jobs: all jobs.
        seconds: between two looks.
        observer: is told of what happens.
    """

    def __init__(
        self,
        handed: Mapping[int, Handed],
        jobs: Sequence[Job],
        *,
        seconds: float,
        observer: Observer,
    ) -> None:
        self._handed, self._jobs = dict(handed), jobs
        self._seconds, self._observer = seconds, observer
        self._begun: set[int] = set()
        self._missing_since: dict[int, float] = {}
        self._is_silent = False

    def returns(self) -> dict[int, JobReturn]:
        """Return what became of each job, by its position, when all have ended."""
        returned: dict[int, JobReturn] = {}
        while True:
            known = self._ask()
            for position in [one for one in self._handed if one not in returned]:
                if (outcome := self._outcome(position, known)) is not None:
                    returned[position] = outcome
                    self._observer.ended(position, outcome)
            if len(returned) == len(self._handed):
                return returned
            time.sleep(self._seconds)

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
        if (outcome := handed.returned(job)) is not None or known is None or queued is not None:
            return outcome
        since = self._missing_since.setdefault(position, time.monotonic())
        # A file may show later than what Slurm says, on a file system that is shared.
        is_certain = time.monotonic() - since >= 2 * self._seconds
        return _without_result(job, handed) if is_certain else None


def _without_result(job: Job, handed: Handed) -> JobReturn:
    if (finished := job.finished_before()) is not None:
        return finished
    StatusFile(job.folder).lose(f"Slurm has ended the job {handed.id}, see {handed.paths.stdout}.")
    reason = reason_unfinished(job.folder) or "it never began"
    return failed(job, RuntimeError(f"The job {handed.id} has no result: {reason}"))


def _new_submission(sweep: Path) -> Path:
    folder = (sweep / SUBMISSIONS).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(one.name) for one in folder.iterdir() if one.name.isdigit()), default=-1)
    created = folder / str(number)
    created.mkdir()
    return created


def _noted(submission: Path, position: int) -> tuple[Path, list[str]]:
    """Return the folder and the overrides of a job that was submitted."""
    note = json.loads((submission / JOBS).read_text())[position]
    return Path(note["folder"]), note["overrides"]
