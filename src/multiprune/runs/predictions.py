"""``predictions.safetensors``: what a run answered to every validation and test example.

A tensor ``<split>/<task>/<field>`` for each field of ``Answers``, sorted by example, and of
``ScoreTerms``, where answers alone do not give the score.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from multiprune.runs.atomic import atomic_file
from multiprune.tasks.answers import Answers
from multiprune.tasks.score_terms import ScoreTerms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

FILE = "predictions.safetensors"

_TERMS = [one.name for one in fields(ScoreTerms)]


@dataclass(frozen=True)
class Answered(Answers):
    """Answers, and the terms of the score if answers alone do not give it."""

    terms: ScoreTerms | None = None


#: By task, by split.
Predictions = dict[str, dict[str, Answered]]


def write_predictions(
    folder: Path,
    by_split: Mapping[str, Mapping[str, Answers]],
    terms: Mapping[str, Mapping[str, ScoreTerms]] | None = None,
) -> None:
    """Write what was answered, by split and task, and the ``terms`` of scores into ``folder``."""
    tensors = {
        f"{split}/{task}/{field}": _narrow(tensor)
        for split, by_task in by_split.items()
        for task, answers in by_task.items()
        for field, tensor in _tensors(answers, (terms or {}).get(split, {}).get(task)).items()
    }
    with atomic_file(folder / FILE) as beside:
        beside.write_bytes(save(tensors))


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
    parts: dict[tuple[str, str], dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        split, task, field = name.split("/")
        parts[split, task][field] = tensor
    by_split: Predictions = {}
    for (split, task), found in parts.items():
        own = {name: found.pop(name) for name in _TERMS if name in found}
        try:
            terms = ScoreTerms(**own) if own else None
            by_split.setdefault(split, {})[task] = Answered(**found, terms=terms)
        except TypeError as error:
            raise ValueError(f"{file} must hold all of {split}/{task}, but: {error}.") from error
    return by_split


def _tensors(answers: Answers, terms: ScoreTerms | None) -> dict[str, Tensor]:
    return {**vars(answers.sorted()), **({} if terms is None else vars(terms))}


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
