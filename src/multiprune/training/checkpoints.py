"""Checkpointing: the last two to resume from, and the best after the schedule."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.training.checkpoint_file import WholeFiles, damage
from multiprune.training.module import ResumeError

if TYPE_CHECKING:
    from pathlib import Path

    import pytorch_lightning as pl

    from multiprune.training.pruning import Pruning

log = logging.getLogger(__name__)

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


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
        self._folder = folder

    @property
    def file(self) -> Path | None:
        """The checkpoint that was kept; None if no evaluation found the schedule at its end."""
        # By its name here: the path that a checkpoint tells is whatever stands in it.
        return self._folder / "best.ckpt" if self.best_model_path else None

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._pruning.finished:
            super().on_validation_end(trainer, pl_module)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # Lightning leaves it out, and would save None in the next checkpoint.
        self.current_score = state_dict["current_score"]


class Last(Checkpoint):
    """Keeps ``last.ckpt``, everything that a run needs to continue, and the one before it.

    Both are of whole optimizer steps: no checkpoint holds gradients that are being accumulated. A
    step that validation follows is saved when that has begun, and a run that continues there
    begins with it: Lightning leaves out the validation after a step from which it continues.
    """

    def __init__(self, folder: Path, *, every_n_steps: int) -> None:
        check_number("every_n_steps", every_n_steps, at_least=1, whole=True)
        self.folder, self.every_n_steps = folder, every_n_steps
        self._step_before = 0
        self._saved_step: int | None = None
        self._is_due = False

    def has_stepped(self, trainer: pl.Trainer) -> bool:
        """Whether the batch that ends has completed an optimizer step."""
        return trainer.global_step > self._step_before

    def keep(self, trainer: pl.Trainer) -> None:
        """Save the step that ends, now or when validation, which follows, has begun."""
        fit_loop = trainer.fit_loop
        assert fit_loop._data_fetcher is not None
        if fit_loop.epoch_loop._should_check_val_fx(fit_loop._data_fetcher):
            self._is_due = True
        else:
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Save now, unless this step is saved already; between batches of training only."""
        self._is_due = False
        # No run that has all its steps would come back to validation.
        is_lost = trainer.validating and trainer.global_step == trainer.max_steps
        if is_lost or self._saved_step == trainer.global_step:
            return
        trainer.save_checkpoint(
            self.folder / LAST, weights_only=False, storage_options=self.folder / PREVIOUS
        )
        self._saved_step = trainer.global_step
        for logger in trainer.loggers:
            logger.after_save_checkpoint(self)  # type: ignore[arg-type]

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = WholeFiles()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        own = torch.tensor(trainer.global_step, device=pl_module.device)
        steps = trainer.strategy.all_gather(own).flatten().tolist()
        if len(set(steps)) > 1:
            raise RuntimeError(
                f"Ranks resumed from different steps, {steps}: all must see the same files in "
                f"{self.folder}."
            )

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._step_before = trainer.global_step

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self.has_stepped(trainer) and trainer.global_step % self.every_n_steps == 0:
            self.keep(trainer)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._is_due:
            self.save(trainer)

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.validating:
            # As if the first batch were being evaluated: Lightning then begins anew.
            began = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            progress.update(total=began, current=began)


def checkpoint_to_continue(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in ``folder``; None if there never was one.

    Raises:
        ResumeError: if all that there are are damaged.
    """
    problems: dict[Path, str] = {}
    for file in (folder / LAST, folder / PREVIOUS):
        if (problem := damage(file)) is None:
            if problems:
                log.warning("Continuing from %s: %s.", file, "; ".join(problems.values()))
            return file
        problems[file] = f"{file.name} {problem}"
    if not any(file.exists() for file in problems):
        return None
    raise ResumeError(
        f"No checkpoint can be resumed: {'; '.join(problems.values())}; remove {folder} to "
        "start from the beginning."
    )
