"""The model that is trained: one encoder, and a head for each task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from typing_extensions import override

from multiprune.models.beside import states_of
from multiprune.models.heads import logits_at
from multiprune.models.task_heads import TaskHeads, check_names
from multiprune.tasks.outputs.heads import USUAL_DROPOUT
from multiprune.tasks.shared_batch import SharedBatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

    from multiprune.tasks.task import Batch, Task


class MultitaskModel(nn.Module):
    """Sends a batch through the shared encoder, and to the head of each task that labels it.

    ``head_dropout`` is of what heads read; those over the vocabulary have none, as in BERT.
    """

    def __init__(
        self,
        encoder: PreTrainedModel,
        tasks: Mapping[str, Task],
        *,
        head_dropout: float = USUAL_DROPOUT,
    ) -> None:
        super().__init__()
        if not tasks:
            raise ValueError("No tasks were given.")
        check_names(tasks)
        self.encoder: PreTrainedModel = encoder
        self.head_dropout = head_dropout
        self.heads = TaskHeads({name: self.head_for(task) for name, task in tasks.items()})

    def head_for(self, task: Task) -> nn.Module:
        """Return what answers a task from what the encoder makes of a text."""
        return task.output.head(self.encoder, self.head_dropout)

    @override
    def forward(self, batch: Batch) -> Tensor:
        """Return the logits of ``batch``, by sequence or by token as its task asks for."""
        return self.logits_by_task(SharedBatch.of_one(batch))[batch.task]

    def logits_by_task(self, batch: SharedBatch) -> dict[str, Tensor]:
        """Return the logits of each task of ``batch``, whose texts the encoder reads once."""
        states = states_of(self.encoder, batch.inputs)
        return {
            name: logits_at(
                batch.at(name, states), self.encoder, self.heads[name], one.inputs, one.labels
            )
            for name, one in batch.batches.items()
        }
