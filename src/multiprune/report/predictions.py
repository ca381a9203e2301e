"""``predictions.safetensors``: what a run answered to every validation and test example.

A tensor ``<split>/<task>/<field>`` for each field of ``Answers``, sorted by example.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from multiprune.tasks.answers import Answers
from multiprune.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

FILE = "predictions.safetensors"

#: Answers by task, by split.
Predictions = dict[str, dict[str, Answers]]


def write_predictions(folder: Path, by_split: Mapping[str, Mapping[str, Answers]]) -> None:
    """Write what was answered, by split and task, into ``folder``."""
    tensors = {
        f"{split}/{task}/{field}": _narrow(tensor)
        for split, by_task in by_split.items()
        for task, answers in by_task.items()
        for field, tensor in vars(answers.sorted()).items()
    }
    with whole_file(folder / FILE) as beside:
        save_file(tensors, beside)


def read_predictions(folder: Path) -> Predictions:
    """Return what ``write_predictions`` wrote.

    Raises:
        FileNotFoundError: if there is no such file, as in runs of earlier versions.
        ValueError: if it is damaged.
    """
    file = folder / FILE
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} must be a whole safetensors file, but: {error}.") from error
    fields: dict[tuple[str, str], dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        split, task, field = name.split("/")
        fields[split, task][field] = tensor
    by_split: Predictions = {}
    for (split, task), parts in fields.items():
        try:
            by_split.setdefault(split, {})[task] = Answers(**parts)
        except TypeError as error:
            raise ValueError(f"{file} must hold all of {split}/{task}, but: {error}.") from error
    return by_split


def _narrow(tensor: Tensor) -> Tensor:
    """Return numbers in as few bytes as hold them: a run has thousands of small integers."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.is_floating_point():
        return tensor.float()
    low, high = (int(one) for one in tensor.aminmax()) if tensor.numel() else (0, 0)
    for kind in (torch.int8, torch.int16, torch.int32):
        if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max:
            return tensor.to(kind)
    return tensor
