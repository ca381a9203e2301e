"""A run small enough to repeat many times: two generated tasks, an encoder of two layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from application import save_untrained
from hydra.utils import instantiate
from omegaconf import OmegaConf
from typing_extensions import override

from multiprune.budget import FractionBudget, FullBudget
from multiprune.data.datamodule import MultitaskDataModule
from multiprune.data.mixing import ProportionalMixing
from multiprune.data.source import GeneratedSource
from multiprune.metrics import Accuracy, Pearson
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.pruning.schedule import CubicSchedule
from multiprune.tasks.classification import Classification, Regression
from multiprune.tasks.synthetic import agreement, quantity
from multiprune.training import Pruning
from multiprune.training.checkpoints import BestFinished, Last
from multiprune.training.module import MultitaskModule
from multiprune.training.objective import PlainLoss
from multiprune.training.optim import AdamWRecipe
from multiprune.training.sandwich import trained_with
from multiprune.training.stop import Stop

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from multiprune.tasks.task import Task
    from multiprune.training.objective import Objective

EPOCHS = 2


class InterruptionError(Exception):
    """What a test stops a run with."""


class InterruptAt(pl.Callback):
    """Stops a run before the batch after ``step`` optimizer steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            raise InterruptionError


@dataclass
class Run:
    """The objects of one run."""

    trainer: pl.Trainer
    module: MultitaskModule
    pruning: Pruning
    data: MultitaskDataModule
    best: BestFinished

    def state(self) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in self.module.state_dict().items()}


def tasks() -> dict[str, Task]:
    rows = {"train": 48, "validation": 24}
    return {
        "agreement": Classification(
            text=["sentence"],
            label="label",
            labels=["disagrees", "agrees"],
            metrics={"accuracy": Accuracy()},
            source=GeneratedSource(generator=agreement, rows=rows),
        ),
        "quantity": Regression(
            text=["sentence"],
            label="label",
            minimum=0,
            maximum=10,
            metrics={"pearson": Pearson()},
            source=GeneratedSource(generator=quantity, rows=rows),
        ),
    }


def tiny_run(
    folder: Path,
    pruner_file: Path,
    *,
    stop_at: int | None = None,
    every_n_steps: int = 1,
    accumulate: int = 1,
    workers: int = 0,
    objective: Objective | None = None,
    **trainer_options: Any,
) -> Run:
    """Build a run of 2 epochs with 6 batches of 16 each; ``stop_at`` interrupts it."""
    pl.seed_everything(0, verbose=False)
    encoder = from_scratch(layers=2, hidden=16, heads=2, intermediate=32)
    data = MultitaskDataModule(
        tasks=tasks(),
        tokenizer=encoder.tokenizer,
        max_length=32,
        batch_size=16,
        mixing=ProportionalMixing(),
        workers=workers,
    )
    recipe = AdamWRecipe(learning_rate=1e-2, head_learning_rate=1e-2, weight_decay=0.1, warmup=0.1)
    dense = pruner_file.stem == "none"
    budget = FullBudget() if dense else FractionBudget(fraction=0.3)
    config = OmegaConf.load(pruner_file)
    if "mask" in config:
        config.mask.run = str(save_untrained(folder / "source", density=0.2, layers=2))
    pruner = instantiate(config, _partial_=True)(budget=budget)
    pruning = Pruning(
        pruner, CubicSchedule(start=0.1, stop=0.7), every_n_steps=2, encoder="model.encoder"
    )
    objective = trained_with(objective or PlainLoss(), pruning)
    objective.prepare(encoder, data.tasks, data.max_length)
    module = MultitaskModule(
        MultitaskModel(encoder.model, data.tasks), data.tasks, recipe, objective=objective
    )
    best = BestFinished(folder, pruning)
    last = Last(folder, every_n_steps=every_n_steps)
    interruptions = [] if stop_at is None else [InterruptAt(stop_at)]
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        callbacks=[pruning, best, last, Stop(last), *interruptions],
        logger=False,
        gradient_clip_val=1.0,
        accumulate_grad_batches=accumulate,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=str(folder),
        **trainer_options,
    )
    return Run(trainer, module, pruning, data, best)


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Assert that two states are equal bit for bit."""
    assert first.keys() == second.keys()
    different = [key for key in first if not torch.equal(first[key], second[key])]
    assert not different
