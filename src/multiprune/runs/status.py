"""``status.json``: the state and progress of a run."""

from __future__ import annotations

import json
import logging
import os
import platform
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from multiprune.redact import redacted
from multiprune.runs.atomic import atomic_file
from multiprune.runs.schema import check_schema, read_json

log = logging.getLogger(__name__)

STATUS = "status.json"

#: How long a run on another machine may be silent before it counts as lost.
SILENCE = timedelta(minutes=15)


class GaveUpError(RuntimeError):
    """A job of a sweep has ended itself, because others were better."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What ``status.json`` holds.

    Attributes:
        state: ``waiting``, ``running``, ``finished``, ``failed``, ``interrupted``, ``given up`` or
            ``lost``.
        reason: one sentence on why that is so.
        step: optimizer steps done.
        total_steps: None until training begins.
        density: kept / total of what the budget counts, as last logged.
        score: on validation data, of the last evaluation.
        seconds_per_step: wall time with evaluation, since this start of the run.
        started: of this start of the run, UTC, ISO 8601.
        updated: when this was written, UTC, ISO 8601.
        pid: of the process that runs it, or that will see to it that it is run; 0 if that is none.
        host: where that process is; empty if there is none.
    """

    state: str = "running"
    reason: str = ""
    step: int = 0
    total_steps: int | None = None
    density: float | None = None
    score: float | None = None
    seconds_per_step: float | None = None
    started: str
    updated: str
    pid: int
    host: str

    def is_lost(self, now: datetime) -> bool:
        """Whether a run that says that it runs, or will, cannot: killed, or its machine is gone."""
        if self.state == "lost":
            return True
        if self.state not in ("running", "waiting") or not self.host:
            return False
        if self.host == platform.node():
            return not _is_alive(self.pid)
        is_silent = now - datetime.fromisoformat(self.updated) > SILENCE
        return is_silent and self.state == "running"

    def seconds_left(self, now: datetime) -> float | None:
        """Return how long a running run will go on training; None if that is not known yet."""
        if self.state != "running" or self.total_steps is None or self.seconds_per_step is None:
            return None
        since = (now - datetime.fromisoformat(self.updated)).total_seconds()
        return max(0.0, (self.total_steps - self.step) * self.seconds_per_step - since)


def read_status(folder: Path) -> Status | None:
    """Return the status of the run in ``folder``; None if it has left none.

    Raises:
        ValueError: if there is one that cannot be read.
    """
    try:
        content = read_json(folder / STATUS)
        # Imported late: it takes a tenth of a second, and most runs have no status to read.
        from multiprune.runs.status_record import StatusRecord

        check_schema(StatusRecord, content, name=STATUS)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder / STATUS} is damaged: {error}") from None
    known = {one.name for one in fields(Status)}
    return Status(**{key: value for key, value in content.items() if key in known})


def is_concluded(folder: Path) -> bool:
    """Whether a run that has results has done all that comes after them, as far as is known."""
    try:
        status = read_status(folder)
    except ValueError:
        return False
    return status is None or status.state == "finished"


def reason_unfinished(folder: Path) -> str | None:
    """Return what its status says of a run without results; None if it has left none."""
    try:
        status = read_status(folder)
    except ValueError as error:
        return str(error)
    if status is None:
        return None
    state = "lost" if status.is_lost(utc_now()) else status.state
    says_step = state in ("failed", "given up")
    step = f" at step {status.step}" if status.step and not says_step else ""
    return f"{state}{step}" + (f": {status.reason}" if status.reason else "")


class StatusFile:
    """Writes the status of the run in ``folder``, beside the file, which then takes its place.

    Of what a run does, nothing is written before :meth:`begin`, nor after :meth:`end`.

    Args:
        folder: of the run.
        writes: whether this process is the one that writes, among those of a run.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.folder = folder
        self._writes = writes
        self._status: Status | None = None

    def begin(self) -> None:
        """Say that the run is running, in this process, and as far as it was before."""
        now = _iso(utc_now())
        before = self._read()
        self._status = Status(
            step=0 if before is None else before.step,
            started=now,
            updated=now,
            pid=os.getpid(),
            host=platform.node(),
        )
        self._write()

    def wait(self, *, reason: str = "", queued: bool = False) -> None:
        """Say that the run waits to begin, or to go on.

        Args:
            reason: why.
            queued: whether it waits in a queue of its own; otherwise for this process, and is lost
                if that ends.
        """
        now = _iso(utc_now())
        pid, host = (0, "") if queued else (os.getpid(), platform.node())
        before = self._read() or Status(started=now, updated=now, pid=pid, host=host)
        self._status = replace(
            before, state="waiting", reason=reason, updated=now, pid=pid, host=host
        )
        self._write()

    def lose(self, reason: str) -> None:
        """Say that a run is lost, unless it has said itself what became of it."""
        before = self._read()
        if before is not None and before.state in ("running", "waiting"):
            self.overrule("lost", reason)

    def overrule(self, state: str, reason: str) -> None:
        """Say what became of a run, whatever it has said itself."""
        if (before := self._read()) is not None:
            self._status = replace(before, state=state, reason=reason, updated=_iso(utc_now()))
            self._write()

    def update(self, **changes: Any) -> None:
        """Change some fields of a running run."""
        if self._status is not None and self._status.state == "running":
            self._status = replace(self._status, **changes, updated=_iso(utc_now()))
            self._write()

    def end(self, state: str, **changes: Any) -> None:
        """Say what became of the run; only the first word counts."""
        self.update(state=state, **changes)

    def _read(self) -> Status | None:
        try:
            return read_status(self.folder)
        except (ValueError, OSError):
            return None

    def _write(self) -> None:
        if not self._writes or self._status is None:
            return
        content = json.dumps(redacted(asdict(self._status)), indent=2) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.folder / STATUS, sync=False) as beside:
                beside.write_text(content)
        except OSError as error:
            # No run ends, or hides why it ends, because nobody can be told.
            log.warning("The status of %s could not be written: %s", self.folder, error)


def utc_now() -> datetime:
    """Return the time that status files are compared with."""
    return datetime.now(UTC)


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits for its parent to notice, where Linux tells."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False
