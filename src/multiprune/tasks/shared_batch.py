"""A batch of texts with labels of several tasks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor

from multiprune.tasks.task import padding_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from multiprune.tasks.task import Batch


@dataclass(frozen=True)
class SharedBatch:
    """Texts that an encoder reads once, and the labels that each task has of them.

    Attributes:
        inputs: of the encoder, each of shape (texts, tokens).
        labels: by task, without inputs of their own.
        places: by task, the texts that have its labels; a task that is missing has all of them.
        is_padded: whether a text is shorter than another; None if that is not known.
    """

    inputs: Mapping[str, Tensor]
    labels: Mapping[str, Batch]
    places: Mapping[str, Tensor] = field(default_factory=dict)
    is_padded: bool | None = None

    @classmethod
    def of_one(cls, batch: Batch) -> SharedBatch:
        """Return the batch of one task as one that is shared by no other."""
        return cls(batch.inputs, {batch.task: batch}, is_padded=batch.is_padded)

    @property
    def batches(self) -> dict[str, Batch]:
        """The batch of each task alone."""
        return {
            name: replace(one, inputs={key: self.at(name, of) for key, of in self.inputs.items()})
            for name, one in self.labels.items()
        }

    def at(self, task: str, values: Tensor) -> Tensor:
        """Return those of values of shape (texts, …) that are of the texts of a task."""
        return values[self.places[task]] if task in self.places else values

    def to(self, device: torch.device) -> SharedBatch:
        """Return this batch on ``device``."""
        moved = self._with_each(lambda one: one.to(device, non_blocking=device.type == "cuda"))
        return replace(moved, is_padded=padding_in(self.inputs, self.is_padded))

    def pin_memory(self) -> SharedBatch:
        """Return this batch in pinned memory."""
        return self._with_each(Tensor.pin_memory)

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> SharedBatch:
        labels = {key: replace(one, labels=change(one.labels)) for key, one in self.labels.items()}
        return replace(
            self,
            inputs={key: change(one) for key, one in self.inputs.items()},
            labels=labels,
            places={key: change(one) for key, one in self.places.items()},
        )
