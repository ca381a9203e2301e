"""A callback that keeps a run's ``status.json`` up to date."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from typing_extensions import override

if TYPE_CHECKING:
    from multiprune.runs.status import StatusFile

_SECONDS_BETWEEN_WRITES = 5.0


class ReportStatus(pl.Callback):
    """Writes how far a run has come, at most once every few seconds."""

    def __init__(self, status: StatusFile) -> None:
        self.status = status
        self._first_step = 0
        self._total_steps: int | None = None
        self._began_at = 0.0
        self._due_at = 0.0
        #: What was logged when it was read last: that waits for the device.
        self._logged: dict[str, float] = {}

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A resumed run does not begin at 0.
        self._first_step, self._began_at = trainer.global_step, time.monotonic()
        total = trainer.estimated_stepping_batches
        self._total_steps = None if total == float("inf") else int(total)
        self._write(trainer)

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer._logger_connector.should_update_logs:
            self._read(trainer)
        if time.monotonic() >= self._due_at:
            self._write(trainer)

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # So that a run is not taken for lost while it is evaluated.
        if time.monotonic() >= self._due_at:
            self._write(trainer)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read(trainer)
        self._write(trainer)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read(trainer)
        self._write(trainer)

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._write(trainer)

    def _read(self, trainer: pl.Trainer) -> None:
        logged = trainer.callback_metrics | trainer.logged_metrics
        self._logged |= {
            field: float(logged[key])
            for field, key in (("density", "density"), ("score", "val/score"))
            if key in logged
        }

    def _write(self, trainer: pl.Trainer) -> None:
        known = dict(self._logged)
        if done := trainer.global_step - self._first_step:
            known["seconds_per_step"] = (time.monotonic() - self._began_at) / done
        self.status.update(step=trainer.global_step, total_steps=self._total_steps, **known)
        self._due_at = time.monotonic() + _SECONDS_BETWEEN_WRITES
