"""A callback that continues metric curves of a resumed run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from typing_extensions import override

from multiprune.tracking.csv import MetricsCsv

if TYPE_CHECKING:
    from collections.abc import Mapping

_CURVES = "curves"


class Curves(pl.Callback):
    """Keeps in checkpoints what was logged last.

    Lightning logs a step after its end, where it is saved, and logs again what is not new, such as
    the last loss of a task that the step did not train; it begins each epoch anew.
    """

    def __init__(self) -> None:
        self._saved: Mapping[str, Any] | None = None

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        loop = trainer.fit_loop.epoch_loop
        logged = loop._results.metrics(on_step=True)["log"]
        checkpoint[_CURVES] = {
            "step": loop._batches_that_stepped,
            "epoch": trainer.current_epoch,
            "is_due": trainer._logger_connector.should_update_logs,
            "cells": {name: float(value) for name, value in logged.items()},
        }

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._saved = checkpoint.get(_CURVES)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._saved is None:
            return
        cells, epoch = self._saved["cells"], self._saved["epoch"]
        row = {**cells, "epoch": epoch} if cells and self._saved["is_due"] else {}
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.go_on(self._saved["step"], row)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        saved, self._saved = self._saved, None
        if saved is not None and saved["epoch"] == trainer.current_epoch:
            pl_module.log_dict(saved["cells"])

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._saved is not None:
            # Nothing was left to train, so that Lightning does not count what the last step ended.
            loop, epoch = trainer.fit_loop.epoch_loop, trainer.fit_loop.epoch_progress.current
            loop._batches_that_stepped = max(loop._batches_that_stepped, trainer.global_step)
            epoch.completed = max(epoch.completed, epoch.ready)
