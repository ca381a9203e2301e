"""What Slurm's queue holds of this user's jobs, by what was noted when they were submitted."""

from __future__ import annotations

import getpass
import subprocess
from dataclasses import dataclass
from pathlib import Path

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
    # `squeue` waits long for a controller that is being restarted.
    command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}"]
    try:
        asked = subprocess.run(
            [*command, f"--format={_FORMAT}"],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    except subprocess.CalledProcessError as error:
        problem = last_line(error.stderr)
        raise OSError(f"Slurm must tell what it has queued, but: {problem}") from None
    except FileNotFoundError:
        raise OSError(
            "Slurm must be there to take jobs, but there is no `squeue`: start the sweep "
            "where `sbatch` works."
        ) from None
    except subprocess.TimeoutExpired:
        raise OSError("Slurm must tell what it has queued, but does not answer.") from None
    return parse(asked.stdout)


def parse(listing: str) -> dict[str, Queued]:
    """Read what ``squeue`` has printed."""
    jobs = {}
    for line in listing.splitlines():
        identifier, state, comment = line.split("|", 2)
        jobs[identifier] = Queued(identifier, state in ("RUNNING", "COMPLETING"), Path(comment))
    return jobs


def last_line(text: str) -> str:
    """Return what a command said last, which is why it failed."""
    return next((one for one in reversed(text.splitlines()) if one.strip()), "it does not say why")
