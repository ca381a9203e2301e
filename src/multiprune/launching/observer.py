"""Follow the jobs of a sweep that run in other processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra.core.utils import JobStatus

from multiprune.launching.failures import failure
from multiprune.outcome import sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra.core.utils import JobReturn

    from multiprune.launching.failures import FirstFailures
    from multiprune.launching.job import Job
    from multiprune.launching.progress import SweepProgress


class SweepObserver:
    """Shows what becomes of jobs, and ends the sweep if the first ones fail alike.

    Args:
        progress: what a person sees.
        jobs: all of them; what happens is told by positions in it.
        first: decides about the end.
        output: the file in a job's folder that tells more of its failure; the folder if empty.
    """

    def __init__(
        self,
        progress: SweepProgress,
        jobs: Sequence[Job],
        first: FirstFailures,
        *,
        output: str = "",
    ) -> None:
        self._progress, self._jobs, self._first = progress, jobs, first
        self._output = output

    def started(self, position: int) -> None:
        """A job has begun."""
        self._progress.started(position)

    def ended(self, position: int, outcome: JobReturn) -> None:
        """A job has ended; one that finished in an earlier sweep says nothing about this one."""
        job, problem = self._jobs[position], None
        if has_failed := outcome.status == JobStatus.FAILED:
            problem = f"{sentence(outcome._return_value)} ({job.folder / self._output})"
        error = failure(outcome)
        self._progress.ended(position, problem, gave_up=has_failed and error is None)
        if not job.has_results:
            self._first.ended(error)
