"""Inference with several models that share weights, by switching masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from multiprune.export.bitmask import INTEGERS
from multiprune.export.checkpoint import MEANING, load_encoder, load_heads
from multiprune.export.packed import MASKS, load_masks
from multiprune.export.shipped import ShippedModel, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from multiprune.export.packed import Kept
    from multiprune.models.task_heads import TaskHeads
    from multiprune.runs.masks import Mask

#: What each byte of a packed mask stands for, shape (256, 8): -1 where a bit is set, or else 0.
_ENTRIES = -((torch.arange(256).unsqueeze(-1) >> torch.arange(8)) & 1)


class SharedWeight(nn.Module):
    """A tensor of which each of several models keeps a part, noted in one bit a weight."""

    def __init__(self, weight: Tensor, masks: Sequence[Mask | None]) -> None:
        super().__init__()
        whole = torch.full([-(-weight.numel() // 8)], 255, dtype=torch.uint8)
        rows = [whole if mask is None else torch.from_numpy(mask.bits) for mask in masks]
        self.weight: Tensor
        self.masks: Tensor
        # Not parameters, which would be counted and trained; moved and cast as they are.
        self.register_buffer("weight", weight.clone())
        self.register_buffer("masks", torch.stack(rows).to(weight.device))

    def part_of(self, number: int) -> Tensor:
        """Return the tensor as a model has it."""
        # Bits of weights and mask meet as integers, some four times as fast as `torch.where`.
        integer = INTEGERS[self.weight.itemsize]
        entries = _ENTRIES.to(self.masks.device, integer)
        rows = entries.index_select(0, self.masks[number].int())
        part = rows.view(-1)[: self.weight.numel()].view(self.weight.shape)
        return part.bitwise_and_(self.weight.view(integer)).view(self.weight.dtype)


class PackedModel(ShippedModel):
    """A shipped model whose encoder takes the weights of the task that it is asked for.

    Between tasks of one mask nothing is written, and a forward pass runs on plain layers. As
    weights change in place, different tasks must not be asked for from several threads at once.

    Attributes:
        task: whose weights the encoder has now.
    """

    def __init__(
        self,
        encoder: PreTrainedModel,
        heads: TaskHeads,
        meaning: Mapping[str, Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        models: Sequence[Kept],
    ) -> None:
        super().__init__(encoder, heads, meaning, tokenizer)
        weights = encoder.state_dict()
        self._paths = list(dict.fromkeys(path for one in models for path in one.masks))
        self._shared = nn.ModuleList(
            SharedWeight(weights[path], [one.masks.get(path) for one in models])
            for path in self._paths
        )
        self._numbers = {task: number for number, one in enumerate(models) for task in one.tasks}
        self._in_place: int | None = None
        self.task = next(iter(meaning))
        self.switch(self.task)

    @torch.no_grad()
    def switch(self, task: str) -> None:
        """Give the encoder the weights of a task, unless it has them already."""
        self.check_task(task)
        number = self._numbers[task]
        if number != self._in_place:
            # Whatever stops this half-way, the next call begins anew.
            self._in_place = None
            for path, shared in zip(self._paths, self._shared, strict=True):
                self.encoder.get_parameter(path).data.copy_(shared.part_of(number))  # type: ignore[operator]
            self._in_place = number
        self.task = task

    @override
    def forward(
        self, task: str, inputs: Mapping[str, Tensor], labels: Tensor | None = None
    ) -> Tensor:
        self.switch(task)
        return super().forward(task, inputs, labels)

    @override
    def logits_by_task(
        self, tasks: Sequence[str], inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        self.switch(tasks[0])
        return super().logits_by_task(tasks, inputs)

    @override
    def tasks_of_one_encoder(self, tasks: Sequence[str]) -> list[list[str]]:
        numbers = dict.fromkeys(self._numbers[task] for task in tasks)
        return [[task for task in tasks if self._numbers[task] == one] for one in numbers]


def load_packed(folder: Path) -> PackedModel:
    """Load models that were packed into ``folder``; no code from it is run.

    Raises:
        ValueError: if a file is damaged, or does not fit the others.
    """
    encoder = load_encoder(folder)
    heads, meaning = load_heads(folder, encoder)
    models = load_masks(folder / MASKS, encoder.state_dict())
    tasks = [task for one in models for task in one.tasks]
    if sorted(tasks) != sorted(meaning):
        raise ValueError(
            f"{folder / MASKS} must hold a mask for each task in {MEANING}, "
            f"{', '.join(sorted(meaning))}, but is of {', '.join(sorted(tasks)) or 'none'}."
        )
    return PackedModel(encoder, heads, meaning, load_tokenizer(folder), models).eval()
