"""Which checkpoints are kept: one to resume from, and the best of the finished schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytorch_lightning.callbacks import ModelCheckpoint
from typing_extensions import override

if TYPE_CHECKING:
    from pathlib import Path

    import pytorch_lightning as pl

    from multiprune.training.pruning import Pruning


class BestFinished(ModelCheckpoint):
    """Keeps the weights with the best ``val/score`` among those that meet the budget.

    A maximum over the whole run would pick the least pruned epoch.
    """

    def __init__(self, folder: Path, pruning: Pruning) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor="val/score",
            mode="max",
            save_weights_only=True,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self._pruning = pruning

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._pruning.finished:
            super().on_validation_end(trainer, pl_module)


class Last(ModelCheckpoint):
    """Keeps ``last.ckpt``, everything that a run needs to continue, every ``every_n_steps``."""

    def __init__(self, folder: Path, *, every_n_steps: int) -> None:
        super().__init__(
            dirpath=folder,
            filename="last",
            every_n_train_steps=every_n_steps,
            enable_version_counter=False,
        )
