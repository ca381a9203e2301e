"""Loggers that hold a run up until Slurm says that its time is over."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import Logger
from typing_extensions import override

if TYPE_CHECKING:
    from types import FrameType


class _Silent(Logger):
    @override
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        pass

    @override
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass

    @property
    @override
    def name(self) -> str:
        return "wait"

    @property
    @override
    def version(self) -> str:
        return ""


class WaitForSlurm(_Silent):
    """Waits at a step for the signal that Slurm sends, when it has started a job the first time.

    Elsewhere, and when the job is run again, it does nothing.
    """

    def __init__(self, *, step: int) -> None:
        super().__init__()
        self.step = step
        self._told = threading.Event()
        if self._is_first_start() and callable(handler := signal.getsignal(signal.SIGUSR2)):

            def noted(number: int, frame: FrameType | None) -> None:
                self._told.set()
                handler(number, frame)

            signal.signal(signal.SIGUSR2, noted)

    @override
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if step == self.step and self._is_first_start():
            assert self._told.wait(timeout=300)

    def _is_first_start(self) -> bool:
        return "SLURM_JOB_ID" in os.environ and "SLURM_RESTART_COUNT" not in os.environ


class StopBeforeTheFirstStep(_Silent):
    """Says itself, while it is being built, what Slurm says when the time is up."""

    def __init__(self) -> None:
        super().__init__()
        if "SLURM_JOB_ID" in os.environ:
            os.kill(os.getpid(), signal.SIGUSR2)
