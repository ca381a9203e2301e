"""One sweep in a folder at a time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from typing_extensions import override

from multiprune.outcome import is_first_process

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

LOCK = ".sweep.lock"


def lock(folder: Path) -> int:
    """Take ``folder`` for this process until it ends, or until the result is closed.

    The system lets go of the lock however the process ends, so that none can be left behind.

    Raises:
        ValueError: if another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(
            f"One sweep writes into a folder at a time, but {folder} is being written to by "
            f"{_owner(folder / LOCK)}."
        ) from None
    except OSError as error:
        log.warning("Another sweep into %s would not be noticed: %s", folder, error)
        return descriptor
    os.truncate(descriptor, 0)
    os.write(descriptor, json.dumps({"pid": os.getpid(), "host": platform.node()}).encode())
    return descriptor


class SweepLock(Callback):
    """Refuses a sweep into a folder that another one writes to, whatever launcher they use."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    @override
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        # The others repeat the whole sweep.
        if not is_first_process():
            return
        try:
            self._descriptor = lock(Path(config.hydra.sweep.dir))
        except ValueError as error:
            # Hydra makes a warning of any other exception.
            raise SystemExit(f"error: {error}") from error

    @override
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def _owner(file: Path) -> str:
    try:
        owner = json.loads(file.read_text())
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another"
