"""What the jobs of ``toy_app.py`` have left, and waiting for it."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

APPLICATION = Path(__file__).with_name("toy_app.py")


def records(folder: Path, kind: str = "json") -> dict[int, dict[str, Any]]:
    files = [one for one in folder.glob(f"*.{kind}") if one.read_text()]
    return {int(one.stem): json.loads(one.read_text()) for one in sorted(files)}


def wait_until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pretend(folder: Path, command: str, script: str) -> None:
    """Put a command of Slurm's into ``folder``, which will be first on the path."""
    folder.mkdir(exist_ok=True)
    file = folder / command
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
