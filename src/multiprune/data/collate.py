"""Collate examples of one task into a padded batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from multiprune.tasks.task import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from multiprune.tasks.task import Task


def collate(
    name: str, task: Task, columns: Mapping[str, Sequence[Any]], *, padding_token: int
) -> Batch:
    """Pad the encoded rows of one task, with ``labels`` beside the columns of ``padded``."""
    tokens = {key: values for key, values in columns.items() if key != "labels"}
    inputs = padded(tokens, padding_token=padding_token)
    return Batch(name, inputs, task.label_tensor(columns["labels"], inputs["input_ids"].shape[1]))


def padded(tokens: Mapping[str, Sequence[Any]], *, padding_token: int) -> dict[str, Tensor]:
    """Pad encoded rows on the right to the longest of them, and tell what is padding.

    ``tokens`` holds token numbers, a list or array a row, by name of the encoder's input; all but
    ``input_ids``, which are padded with ``padding_token``, are padded with zeros.
    """
    inputs = {
        key: pad_sequence(
            [torch.as_tensor(value, dtype=torch.long) for value in values],
            batch_first=True,
            padding_value=padding_token if key == "input_ids" else 0,
        )
        for key, values in tokens.items()
    }
    lengths = torch.tensor([len(value) for value in tokens["input_ids"]])
    width = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = (torch.arange(width) < lengths.unsqueeze(1)).long()
    return inputs
