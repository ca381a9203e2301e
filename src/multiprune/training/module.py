"""Multitask finetuning as a LightningModule."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from typing_extensions import override

from multiprune.data.datamodule import MultitaskDataModule
from multiprune.models.padding import padding_is_known
from multiprune.runs.predictions import Answers
from multiprune.runs.settings import difference
from multiprune.tasks.answers import answers_to
from multiprune.tasks.scores import reads_rows, scores_of
from multiprune.tasks.shared_batch import SharedBatch
from multiprune.training.finite import FiniteLosses
from multiprune.training.objective import PlainLoss

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytorch_lightning.utilities.types import OptimizerLRScheduler
    from torch.optim import Optimizer

    from multiprune.models.multitask import MultitaskModel
    from multiprune.tasks.rows import Rows
    from multiprune.tasks.task import Batch, Task
    from multiprune.training.objective import Objective
    from multiprune.training.optim import AdamWRecipe


# Where a checkpoint says how many processes shared each batch.
_PROCESSES = "world_size"


class ResumeError(ValueError):
    """A run cannot continue from a checkpoint, or could not from the one that it would write."""


class GatheredAnswers(Metric):
    """The answers to a whole evaluation set, gathered over all ranks."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.predictions: list[Tensor]
        self.labels: list[Tensor]
        self.examples: list[Tensor]
        for state in ("predictions", "labels", "examples"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    @override
    def update(self, predictions: Tensor, labels: Tensor, examples: Tensor) -> None:
        self.predictions.append(predictions)
        self.labels.append(labels)
        self.examples.append(examples)

    @override
    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        return (
            dim_zero_cat(self.predictions),
            dim_zero_cat(self.labels),
            dim_zero_cat(self.examples),
        )


class MultitaskModule(pl.LightningModule):
    """Trains one encoder on batches of one task or of several, and evaluates it on every task.

    Logs ``train/<task>/loss``, ``val/<task>/<metric>`` and ``val/score``, the mean of the tasks'
    scores (each the first metric of its task); the same with ``test``. A task in several languages
    has ``<metric>`` as a mean over them, ``<metric>.<language>`` and ``<metric>.<group>``. The
    terms that an objective adds to the loss of a task are logged beside it.

    A step waits for nothing that the device has yet to compute: a loss that is not finite is
    refused before the step after it, and before anything is kept of what it made.

    What is random in a training step (dropout) depends on the seed, the rank and the number of the
    batch alone, so that a resumed run repeats it without saved random states.

    ``config`` is kept in checkpoints; a run cannot be resumed with another one.
    """

    def __init__(
        self,
        model: MultitaskModel,
        tasks: Mapping[str, Task],
        optimizer: AdamWRecipe,
        *,
        objective: Objective | None = None,
        seed: int = 0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # Loggers are told by `tracked`.
        self.save_hyperparameters({"config": dict(config or {})}, logger=False)
        self.model = model
        self.tasks = dict(tasks)
        self.recipe = optimizer
        # Not a module: a teacher has no place among this one's parameters and in its checkpoints.
        self.objective = objective or PlainLoss()
        self.seed = seed
        self.gathered = {
            split: {name: GatheredAnswers() for name in tasks} for split in ("val", "test")
        }
        #: What was answered last, by split and task.
        self.answers: dict[str, dict[str, Answers]] = {"val": {}, "test": {}}
        self._losses = FiniteLosses()
        # Registered, so that Lightning moves them to the model's device.
        self.metrics = torch.nn.ModuleList(
            gathered for by_task in self.gathered.values() for gathered in by_task.values()
        )

    @override
    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.model(batch)
        return logits

    @override
    def on_fit_start(self) -> None:
        self._losses = FiniteLosses()
        self.objective.start(self.trainer)

    @override
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.objective.before_batch(self)
        number = [self.seed, self.global_rank, self.trainer.current_epoch, batch_idx]
        torch.manual_seed(int(np.random.SeedSequence(number).generate_state(1)[0]))

    @override
    def training_step(self, batch: Batch | SharedBatch, batch_idx: int) -> Tensor:
        shared = batch if isinstance(batch, SharedBatch) else SharedBatch.of_one(batch)
        with padding_is_known(self.model.encoder, is_padded=shared.is_padded):
            found = self.objective.losses_by_task(self.model, self.tasks, shared)
        totals = {name: losses.total for name, losses in found.items()}
        self._losses.note(totals, self.global_step)
        for name, losses in found.items():
            size = len(shared.labels[name].labels)
            for term, value in losses.terms.items():
                self.log(f"train/{name}/{term}", value, batch_size=size)
        weighted = [total * self.tasks[name].loss_weight for name, total in totals.items()]
        return torch.stack(weighted).sum()

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        # Lightning would read a loss that it is given for the progress bar in every step.
        if self.trainer._logger_connector.should_update_logs:
            loss = self._losses.check()
            if loss is not None:
                self.trainer.progress_bar_metrics["loss"] = loss

    @override
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().optimizer_step(*args, **kwargs)
        except Exception:
            # What is refused, such as scores that are NaN, may come of a loss that is not finite.
            self._losses.check()
            raise

    @override
    def on_validation_start(self) -> None:
        self._losses.check()

    @override
    def on_train_end(self) -> None:
        self._losses.check()

    @override
    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._collect("val", batch)

    @override
    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._collect("test", batch)

    @override
    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    @override
    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        total = int(self.trainer.estimated_stepping_batches)
        # A gradient scaler (fp16) would leave unscaling to a fused optimizer, after clipping.
        fused = self.recipe.fused and self.trainer.precision != "16-mixed"
        recipe = replace(self.recipe, fused=fused)
        optimizer, schedule = recipe.build(self.model.encoder, self.model.heads, total)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    @override
    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Lightning refuses to clip for fused optimizers in any mixed precision, although only
        # fp16 has a gradient scaler, which such an optimizer would run after the clipping.
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._losses.check()
        checkpoint[_PROCESSES] = self.trainer.world_size

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["hyper_parameters"]["config"]
        if found := difference(saved, self.hparams["config"]):
            key, before, now = found
            raise ResumeError(
                f"A run must be resumed with its own configuration, but {key} was {before!r} and "
                f"is {now!r}."
            )
        # The configuration may leave it open, as `trainer.devices=-1` does.
        processes = checkpoint.get(_PROCESSES)
        if processes is not None and processes != self.trainer.world_size:
            raise ResumeError(
                "A run must be resumed by as many processes as began it, but those were "
                f"{processes} and are {self.trainer.world_size}."
            )

    def _collect(self, split: str, batch: Batch) -> None:
        answers = answers_to(self.tasks[batch.task], batch, self(batch))
        self.gathered[split][batch.task].update(
            answers.predictions, answers.labels, answers.examples
        )

    def _log_scores(self, split: str) -> None:
        scores = []
        for name, task in self.tasks.items():
            gathered = self.gathered[split][name]
            if gathered.update_count == 0:
                continue
            # torchmetrics turns the answer to a single example into a scalar.
            answers = task.output.combined(Answers(*map(torch.atleast_1d, gathered.compute())))
            self.answers[split][name] = answers
            gathered.reset()
            values = scores_of(task, answers, self._rows(split, name))
            scores.append(values[task.score_name])
            self._log({f"{split}/{name}/{key}": value for key, value in values.items()})
        if scores:
            self._log({f"{split}/score": mean_score(scores)}, prog_bar=split == "val")

    def _rows(self, split: str, name: str) -> Rows | None:
        """Return what a task's scores are read from beside answers, if there is such."""
        if not reads_rows(self.tasks[name]):
            return None
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, MultitaskDataModule)
        return data.rows(name, {"val": "validation"}.get(split, split))

    def _log(self, values: Mapping[str, float], *, prog_bar: bool = False) -> None:
        # Answers are gathered already; this only tells Lightning that all ranks agree.
        self.log_dict(values, prog_bar=prog_bar, sync_dist=self.trainer.world_size > 1)


def mean_score(scores: Sequence[float]) -> float:
    """Return the mean of the tasks' scores, which is what runs are compared by."""
    return sum(scores) / len(scores)
