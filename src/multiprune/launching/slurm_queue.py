"""This user's jobs in Slurm's queue, matched by their comments."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from multiprune.launching.slurm_client import ask

# The comment comes last: it is a path, which may hold anything.
_FORMAT = "%i|%T|%k"


@dataclass(frozen=True)
class Queued:
    """One job that Slurm has not done with.

    Attributes:
        id: as Slurm writes it, ``ARRAY_INDEX`` in an array.
        runs: whether it has begun, since it was last queued.
        submission: the folder that it was submitted from.
    """

    id: str
    runs: bool
    submission: Path

    @property
    def position(self) -> int:
        """Which of its submission's jobs this is."""
        return int(self.id.partition("_")[2] or 0)


def queue() -> dict[str, Queued]:
    """Return this user's jobs in the queue, by their identifiers.

    Slurm forgets a job minutes after its end, and without accounting for good: who is not in here
    has ended, and what became of it stands in its folder.

    Raises:
        OSError: if Slurm cannot be asked.
    """
    user = f"--user={os.getuid()}"
    return parse(ask("squeue", "--noheader", "--array", user, f"--format={_FORMAT}"))


def parse(listing: str) -> dict[str, Queued]:
    """Read what ``squeue`` has printed."""
    jobs = {}
    for line in listing.splitlines():
        identifier, state, comment = line.split("|", 2)
        jobs[identifier] = Queued(identifier, state in ("RUNNING", "COMPLETING"), Path(comment))
    return jobs
