"""File locks: one sweep, and one run, per folder."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from typing_extensions import override

from multiprune.outcome import is_first_process, refusal
from multiprune.runs.folder import RUN_LOCK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

    from omegaconf import DictConfig

log = logging.getLogger(__name__)

LOCK = ".sweep.lock"


def lock(folder: Path, name: str = LOCK, *, what: str = "sweep") -> FileIO:
    """Take ``folder`` for this process until it ends, or until the result is closed.

    The system lets go of the lock however the process ends, so that none can be left behind.
    ``what`` is who writes into the folder.

    Raises:
        ValueError: if another process has it.
        OSError: if nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Not inherited by programs that are started, and not emptied: it says who has it.
    file = (folder / name).open("ab", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(
            f"{folder} is in use by another {what}, {_owner(folder / name)}: wait for it, or "
            "choose another folder."
        ) from None
    except OSError as error:
        log.warning("Cannot detect another %s that writes to %s: %s", what, folder, error)
        return file
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "host": platform.node()}).encode())
    return file


#: Locks of runs, of which forked processes, such as those that read data, let go: they may outlive
#: a run that is killed, which is to go on at once.
_OF_RUNS: weakref.WeakSet[FileIO] = weakref.WeakSet()


@contextmanager
def one_run_in(folder: Path) -> Iterator[None]:
    """Refuse a run in a folder in which another process runs; nothing in it is touched then."""
    # The other processes of a run belong to the first.
    if not is_first_process():
        yield
        return
    try:
        file = lock(folder, RUN_LOCK, what="run")
    except (ValueError, OSError) as error:
        raise refusal(error) from error
    _OF_RUNS.add(file)
    with file:
        yield


def _let_go() -> None:
    for file in _OF_RUNS:
        file.close()


os.register_at_fork(after_in_child=_let_go)


class SweepLock(Callback):
    """Refuses a sweep into a folder that another one writes to, whatever launcher they use."""

    def __init__(self) -> None:
        self._file: FileIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock with this process: launchers send callbacks to those of jobs."""
        return {"_file": None}

    @override
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        # The others repeat the whole sweep.
        if not is_first_process():
            return
        try:
            self._file = lock(Path(config.hydra.sweep.dir))
        except ValueError as error:
            # Hydra makes a warning of any other exception.
            raise SystemExit(f"error: {error}") from error

    @override
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if self._file is not None:
            self._file.close()


def _owner(file: Path) -> str:
    try:
        owner = json.loads(file.read_text())
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another"
