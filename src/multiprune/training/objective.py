"""The interface of training objectives, and training on labels alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from multiprune.tasks.shared_batch import SharedBatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytorch_lightning as pl
    from torch import Tensor

    from multiprune.models.encoder import Encoder
    from multiprune.models.multitask import MultitaskModel
    from multiprune.tasks.task import Batch, Task
    from multiprune.training.pruning import Pruning


@dataclass(frozen=True)
class Losses:
    """What a batch is trained on, the terms that it is made of, by name, and the model's logits."""

    logits: Tensor
    total: Tensor
    terms: Mapping[str, Tensor]


class Objective(ABC):
    """Says what the model is trained on.

    It is no module: what it holds is in no checkpoint, no optimizer and no ledger.
    """

    def watch(self, pruning: Pruning) -> None:  # noqa: B027
        """Know what prunes the model, and when; before all else."""

    def prepare(  # noqa: B027
        self, encoder: Encoder, tasks: Mapping[str, Task], max_length: int
    ) -> None:
        """Load what is learned from; ``max_length`` is that of texts, in tokens.

        Raises:
            FileNotFoundError: if there is no teacher.
            ValueError: if this student cannot learn these tasks from it.
        """

    def start(self, trainer: pl.Trainer) -> None:  # noqa: B027
        """Training is about to start, on all ranks: prepare what it reads in every step."""

    def before_batch(self, module: pl.LightningModule) -> None:  # noqa: B027
        """A batch is about to be trained on, on all ranks."""

    def losses(self, model: MultitaskModel, task: Task, batch: Batch) -> Losses:
        """Run the model on a batch of a task, and return what it is trained on."""
        of_task = self.losses_by_task(model, {batch.task: task}, SharedBatch.of_one(batch))
        return of_task[batch.task]

    @abstractmethod
    def losses_by_task(
        self, model: MultitaskModel, tasks: Mapping[str, Task], batch: SharedBatch
    ) -> dict[str, Losses]:
        """Run the model on a batch once, and return what each task that labels it trains it on."""


class PlainLoss(Objective):
    """The task's loss on labels alone."""

    @override
    def losses_by_task(
        self, model: MultitaskModel, tasks: Mapping[str, Task], batch: SharedBatch
    ) -> dict[str, Losses]:
        found = {}
        for name, logits in model.logits_by_task(batch).items():
            loss = tasks[name].loss(logits, batch.labels[name].labels)
            found[name] = Losses(logits, loss, {"loss": loss})
        return found
