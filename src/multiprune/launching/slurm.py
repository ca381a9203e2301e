"""Submit the jobs of a sweep to Slurm, and find them again.

All that is known of them lies in the sweep's folder, so that another process can go on waiting:
``.slurm/NUMBER/`` holds what was submitted together, named in each job's comment in the queue.
"""

from __future__ import annotations

import json
import pickle
import platform
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from subprocess import CalledProcessError
from typing import TYPE_CHECKING, Any

from submitit.core.utils import JobPaths
from submitit.slurm.slurm import SlurmExecutor

from multiprune.launching.job import failed
from multiprune.launching.slurm_client import largest_array, last_line
from multiprune.launching.slurm_job import Interpreter, Limit, execute_in_slurm
from multiprune.launching.slurm_queue import queue
from multiprune.runs.status import StatusFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra.core.utils import JobReturn

    from multiprune.launching.job import Job

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


@dataclass(frozen=True)
class Slurm:
    """Where jobs of a sweep are handed over.

    Attributes:
        sweep: the folder of the sweep.
        limit: how long each job may run.
        asked: what submitit is to ask Slurm for.
    """

    sweep: Path
    limit: Limit
    asked: Mapping[str, Any]

    def submit(self, jobs: Sequence[Job]) -> list[Handed]:
        """Hand jobs over, as one array or as few as Slurm allows.

        Arrays share ``array_parallelism``, of which each has 1 at least.

        Raises:
            ValueError: if Slurm refuses, or what is asked for is unknown.
        """
        handed: list[Handed] = []
        arrays = -(-len(jobs) // largest_array())
        at_a_time: int = self.asked["array_parallelism"]
        for array, share in zip(_split(len(jobs), arrays), _split(at_a_time, arrays), strict=True):
            try:
                handed += self._submit_array(jobs[array.start : array.stop], max(1, len(share)))
            except ValueError as error:
                if not handed:
                    raise
                raise ValueError(
                    f"{error} Slurm has {len(handed)} of the {len(jobs)} jobs, which go on: the "
                    "same command, started again later, hands over the rest."
                ) from error
        return handed

    def _submit_array(self, jobs: Sequence[Job], at_a_time: int) -> list[Handed]:
        folder = _new_submission(self.sweep)
        notes = [{"folder": str(one.folder.resolve()), "overrides": one.overrides} for one in jobs]
        (folder / JOBS).write_text(json.dumps(notes, indent=2) + "\n")
        for job in jobs:
            job.wait(queued=True)
        given = dict(self.asked) | {"array_parallelism": at_a_time, "comment": str(folder)}
        count = len(jobs)
        try:
            executor = SlurmExecutor(folder)
            executor.update_parameters(**given, signal_delay_s=self.limit.notice)
            pickled = [pickle.dumps(job) for job in jobs]
            interpreters, limits = [Interpreter.here()] * count, [self.limit] * count
            handed = executor.map_array(execute_in_slurm, pickled, interpreters, limits)
            for file in folder.glob("*.pkl"):
                file.chmod(0o600)
        except BaseException as error:
            # Whatever it was, nobody shall wait for them.
            problem = _refusal(error)
            for job in jobs:
                StatusFile(job.folder).lose(problem)
            if isinstance(error, (CalledProcessError, RuntimeError, ValueError, OSError)):
                raise ValueError(problem) from error
            raise
        return [Handed(folder, one.job_id) for one in handed]


def _split(count: int, parts: int) -> list[range]:
    """Cut ``count`` things into so many parts of almost the same size."""
    ends = [count * part // parts for part in range(parts + 1)]
    return [range(*one) for one in pairwise(ends)]


def _refusal(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and error.filename == "sbatch":
        return f"{platform.node()} has no `sbatch`, a command of Slurm's."
    lines = [one.strip() for one in str(error).splitlines() if one.strip()]
    reason = lines[0].rstrip(".") if lines else type(error).__name__
    problem = f"Slurm has not taken the job: {reason}."
    if not re.search("submit limit|MaxSubmit", str(error)):
        return problem
    return f"{problem} Sweep over a part of the grid, and over the rest when those jobs have ended."


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
                f"Slurm already runs {' '.join(overrides)} in {job.folder}: `scancel "
                f"{queued.id}`, or choose another folder."
            )
        found[position] = Handed(queued.submission, queued.id)
    return found


def _new_submission(sweep: Path) -> Path:
    """Make a folder that its owner alone can look into: jobs are sent with their secrets."""
    folder = (sweep / SUBMISSIONS).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    number = 1 + max((int(one.name) for one in folder.iterdir() if one.name.isdigit()), default=-1)
    created = folder / str(number)
    created.mkdir(mode=0o700)
    return created


def _noted(submission: Path, position: int) -> tuple[Path, list[str]]:
    """Return the folder and the overrides of a job that was submitted."""
    note = json.loads((submission / JOBS).read_text())[position]
    return Path(note["folder"]), note["overrides"]
