"""Dynamic sparsification in a LightningModule that is not of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytorch_lightning as pl
import torch
from tiny_encoders import tiny_encoder, tokens
from torch.utils.data import DataLoader
from typing_extensions import override

from multiprune.budget import FractionBudget
from multiprune.pruning.dynamic_sparsification import DynamicSparsification
from multiprune.pruning.importance import GateFisher
from multiprune.pruning.schedule import LinearSchedule
from multiprune.training import Pruning

if TYPE_CHECKING:
    from pathlib import Path

    from pytorch_lightning.utilities.types import OptimizerLRScheduler
    from torch import Tensor

STEPS = 6


class Own(pl.LightningModule):
    """Makes hidden states small, of the whole encoder and, if it is told to, of its parts."""

    def __init__(self, pruner: DynamicSparsification, *, trains_parts: bool) -> None:
        super().__init__()
        self.encoder = tiny_encoder("bert", dtype=torch.float32)
        self.pruner, self.trains_parts = pruner, trains_parts
        self.parts_run: list[int] = []

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss()
        for part in self.pruner.parts_of_step(self.global_step) if self.trains_parts else ():
            with self.pruner.part(part):
                loss = loss + self.loss()
            self.parts_run.append(part)
        return loss

    def loss(self) -> Tensor:
        states: Tensor = self.encoder(**tokens()).last_hidden_state
        return states.square().mean()

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, *, trains_parts: bool) -> Own:
    pruner = DynamicSparsification(
        budget=FractionBudget(fraction=0.5), importance=GateFisher(smoothing=0.5)
    )
    module = Own(pruner, trains_parts=trains_parts)
    pruning = Pruning(
        pruner, LinearSchedule(start=0.0, stop=0.5), every_n_steps=1, encoder="encoder"
    )
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[pruning],
        default_root_dir=str(folder),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader([0] * STEPS))  # type: ignore[arg-type]
    return module


def test_parts_that_are_run_are_trained(tmp_path: Path) -> None:
    module = fit(tmp_path, trains_parts=True)
    # After the first ranking there are the smallest and one in between, in every step.
    assert len(module.parts_run) == 2 * (STEPS - 1)
    module.pruner.finalize()
    ledger = module.pruner.ledger()
    assert ledger.kept_in("encoder_linear") <= 0.5 * ledger.dense_in("encoder_linear")


def test_module_that_runs_no_parts_is_refused_once_there_are_some(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"must run parts .* but none was run since the last"):
        fit(tmp_path, trains_parts=False)
