"""Call Slurm's commands."""

from __future__ import annotations

import platform
import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# `squeue` waits long for a controller that is being restarted.
_SECONDS = 120

#: Slurm's own default of MaxArraySize.
_LARGEST_ARRAY = 1001


def ask(*command: str) -> str:
    """Run a command of Slurm's, and return what it prints.

    Raises:
        OSError: if it is not installed here, fails, or does not answer.
    """
    name = command[0]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_SECONDS
        )
    except FileNotFoundError:
        raise OSError(f"{platform.node()} has no `{name}`, a command of Slurm's.") from None
    except subprocess.CalledProcessError as error:
        raise OSError(f"`{name}` failed: {last_line(error.stderr)}") from None
    except subprocess.TimeoutExpired:
        raise OSError(f"`{name}` has not answered within {_SECONDS} s.") from None
    return asked.stdout


def largest_array() -> int:
    """Return how many jobs an array may hold; as Slurm is delivered, where it cannot be asked."""
    try:
        configuration = ask("scontrol", "show", "config")
    except OSError:
        return _LARGEST_ARRAY
    # The first limits the index, which begins at 0; without arrays it is 0.
    found = re.findall(r"^MaxArraySize\s*=\s*(\d+)", configuration, re.MULTILINE)
    found += re.findall(r"\bmax_array_tasks=(\d+)", configuration)
    return max(1, min(map(int, found), default=_LARGEST_ARRAY))


def state_of(job: str) -> str | None:
    """Return how a job that has ended did so, in Slurm's words; None if Slurm has forgotten it."""
    for command in (
        ("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%T"),
        ("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State"),
    ):
        try:
            words = ask(*command).split()
        except OSError:
            continue
        if words:
            return words[0]
    return None


def cancel(jobs: Iterable[str]) -> None:
    """End jobs, running or not.

    Raises:
        OSError: if Slurm does not.
    """
    ask("scancel", *jobs)


def last_line(text: str) -> str:
    """Return what a command said last, which is why it failed."""
    return next((one for one in reversed(text.splitlines()) if one.strip()), "it does not say why")
