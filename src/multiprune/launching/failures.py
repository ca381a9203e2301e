"""Failed jobs of a sweep: the final message, and fail-fast."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from hydra.core.utils import JobStatus

from multiprune.arguments import check_number
from multiprune.outcome import is_first_process, sentence
from multiprune.refusal import FailedSweep
from multiprune.runs.status import GaveUpError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def failure(returned: JobReturn) -> Exception | None:
    """Return why a job failed; None if it did not, or has given up, as it was asked to."""
    error = returned._return_value if returned.status == JobStatus.FAILED else None
    return None if isinstance(error, GaveUpError) else error


def conclude(returned: Sequence[JobReturn], config: DictConfig) -> Sequence[JobReturn]:
    """Return what jobs have returned, or end a sweep of Hydra's own sweeper in which one failed.

    Other sweepers look at failures themselves; Hydra's would end with a traceback of the first.

    Raises:
        SystemExit: one line.
    """
    if config.hydra.sweeper._target_ != BASIC_SWEEPER:
        return returned
    failures = [error for job in returned if (error := failure(job)) is not None]
    if failures:
        end_failed_sweep(failures, jobs=len(returned), sweep=config.hydra.sweep.dir)
    for job in returned:
        if job.status == JobStatus.FAILED:
            job.status, job.return_value = JobStatus.COMPLETED, None
    return returned


def end_failed_sweep(failures: Sequence[Exception], *, jobs: int, sweep: str | Path) -> None:
    """End a sweep in one line; in the first failure itself, if the user wants to see that.

    Raises:
        SystemExit: if there are failures.
    """
    if not failures:
        return
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise failures[0]
    if not is_first_process():
        raise SystemExit(1)
    raise FailedSweep(f"error: {len(failures)} of {jobs} jobs failed; {_see(sweep)}.")


class StoppedEarlyError(FailedSweep):
    """A sweep was ended because its first jobs failed alike."""


class FirstFailures:
    """Ends a sweep whose first jobs, in the order in which they end, all fail alike.

    Args:
        limit: how many; None for a sweep that goes on in any case.
        sweep: its folder.
    """

    def __init__(self, limit: int | None, sweep: str | Path) -> None:
        if limit is not None:
            check_number("hydra.launcher.fail_fast", limit, at_least=1, whole=True)
        self._limit, self._sweep = limit, sweep
        self._count = 0
        self._kind: str | None = None

    def ended(self, error: Exception | None) -> None:
        """Note why a job failed, or that it did not.

        Raises:
            StoppedEarlyError: if it is the last of so many.
        """
        if self._limit is None:
            return
        reason = None if error is None else sentence(error)
        # Paths and numbers are those of the job.
        kind = None if reason is None else re.sub(r"/\S+|\d+", "", reason)
        if kind is None or self._kind not in (None, kind):
            self._limit = None
            return
        self._kind, self._count = kind, self._count + 1
        if self._count == self._limit:
            jobs = "job failed" if self._limit == 1 else f"{self._limit} jobs failed alike"
            raise StoppedEarlyError(
                f"error: Stopped by hydra.launcher.fail_fast, as the first {jobs}: {reason} "
                f"({_see(self._sweep)}.)"
            )


def _see(sweep: str | Path) -> str:
    return f"`multiprune status {shlex.quote(str(sweep))}` shows them"
