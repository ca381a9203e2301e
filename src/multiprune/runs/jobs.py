"""The state of the jobs of a sweep, from their folders."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from multiprune.runs.command import overrides_of
from multiprune.runs.duration import duration
from multiprune.runs.find import run_folders
from multiprune.runs.folder import has_results
from multiprune.runs.record import RunRecord
from multiprune.runs.status import read_status, utc_now

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

STATES = ("finished", "running", "waiting", "failed", "given up", "interrupted", "lost", "unknown")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run.

    Attributes:
        state: that of its ``status.json``; ``lost`` if that says that it runs, or will, and nothing
            runs; ``unknown`` if it has left no status that can be read.
        seconds_left: of training, for a running job.
    """

    path: Path
    overrides: tuple[str, ...]
    state: str
    reason: str = ""
    step: int | None = None
    total_steps: int | None = None
    density: float | None = None
    score: float | None = None
    seconds_left: float | None = None


def read_jobs(*paths: Path) -> list[Job]:
    """Return every run in ``paths`` and below them, in the order of their numbers.

    Raises:
        FileNotFoundError: if a path does not exist, or there is no run in it.
    """
    now = utc_now()
    return [_job(folder, now) for folder in sorted(run_folders(paths), key=_by_number)]


def totals(jobs: Sequence[Job]) -> str:
    """Return how many jobs are in which state, and how long the last running one will take."""
    counts = Counter(job.state for job in jobs)
    states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    left = [job.seconds_left for job in jobs if job.seconds_left is not None]
    ahead = f"; those that run train for {duration(max(left))} more" if left else ""
    return f"{len(jobs)} {'job' if len(jobs) == 1 else 'jobs'}: {states}{ahead}."


def as_json(jobs: Sequence[Job]) -> str:
    """Return all that is known of the jobs."""
    content = [vars(job) | {"path": str(job.path)} for job in jobs]
    return json.dumps(content, indent=2) + "\n"


def _job(folder: Path, now: datetime) -> Job:
    overrides = _overrides(folder)
    try:
        status = read_status(folder)
    except ValueError as error:
        return Job(path=folder, overrides=overrides, state="unknown", reason=str(error))
    if has_results(folder) and (status is None or status.state != "finished"):
        return _finished(folder, overrides)
    if status is None:
        return Job(path=folder, overrides=overrides, state="unknown")
    return Job(
        path=folder,
        overrides=overrides,
        state="lost" if status.is_lost(now) else status.state,
        reason=status.reason,
        step=status.step,
        total_steps=status.total_steps,
        density=status.density,
        score=status.score,
        seconds_left=None if status.is_lost(now) else status.seconds_left(now),
    )


def _finished(folder: Path, overrides: tuple[str, ...]) -> Job:
    """Return a job whose results tell more than its status."""
    try:
        record = RunRecord.read(folder)
        return Job(
            path=folder,
            overrides=overrides,
            state="finished",
            step=record.steps,
            total_steps=record.steps,
            density=record.budget.density,
            score=record.score,
        )
    except (ValueError, OSError) as error:
        return Job(path=folder, overrides=overrides, state="unknown", reason=str(error))


def _overrides(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(overrides_of(folder))
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError):
        return ()


def _by_number(folder: Path) -> list[tuple[str, int]]:
    """Return what puts 10 behind 9."""
    parts = re.findall(r"(\D*)(\d*)", str(folder))
    return [(text, int(number or -1)) for text, number in parts]
