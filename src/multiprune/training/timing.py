"""Total duration of a run, over all interruptions."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from typing_extensions import override


class Stopwatch(pl.Callback):
    """Adds up the wall time of training, and of its steps alone (without evaluation)."""

    def __init__(self) -> None:
        self.wall_seconds = 0.0
        self.step_seconds = 0.0
        self.batches = 0
        self._since = 0.0
        self._step_since = 0.0

    @property
    def seconds_per_step(self) -> float:
        """Mean time of a batch, with its optimizer step and what pruning adds."""
        return self.step_seconds / self.batches if self.batches else 0.0

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._add_wall_time()

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._step_since = time.perf_counter()

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.step_seconds += time.perf_counter() - self._step_since
        self.batches += 1

    @override
    def state_dict(self) -> dict[str, Any]:
        self._add_wall_time()
        return {
            "wall_seconds": self.wall_seconds,
            "step_seconds": self.step_seconds,
            "batches": self.batches,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.wall_seconds = state_dict["wall_seconds"]
        self.step_seconds = state_dict["step_seconds"]
        self.batches = state_dict["batches"]

    def _add_wall_time(self) -> None:
        now = time.perf_counter()
        self.wall_seconds += now - self._since
        self._since = now
