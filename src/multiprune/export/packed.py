"""The masks of several models with shared weights, in one file.

The file (``multiprune.runs.masks``) holds masks ``<model>.<tensor>``, models numbered from 0, over
those of the tensor's shared weights that are not zero, in row-major order. Tensors that the model
keeps whole have none. Besides, it holds the ``tasks`` of each model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from multiprune.export.checkpoint import check_file
from multiprune.runs.masks import Mask, Masks, read_mask_file, write_mask_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

MASKS = "shared.masks.safetensors"


@dataclass(frozen=True)
class Kept:
    """What one of the models keeps of shared weights.

    Attributes:
        tasks: what the model answers.
        masks: by tensor, what is kept; other tensors are kept whole.
    """

    tasks: Sequence[str]
    masks: Masks


def save_masks(models: Sequence[Kept], weights: Mapping[str, Tensor], file: Path) -> list[int]:
    """Write what models keep of shared weights; return the bytes that each one's masks take."""
    stored: Masks = {}
    for number, model in enumerate(models):
        for path, mask in model.masks.items():
            kept = mask.unpacked()[_shared(weights[path])]
            if not kept.all():
                stored[f"{number}.{path}"] = Mask.of(kept)
    sizes = write_mask_file(file, stored, tasks=[list(model.tasks) for model in models])
    return [
        sum(size for name, size in sizes.items() if name.startswith(f"{number}."))
        for number in range(len(models))
    ]


def load_masks(file: Path, weights: Mapping[str, Tensor]) -> list[Kept]:
    """Return what models keep of shared weights.

    Raises a ValueError, one sentence that names ``file``, where that is not the whole of a file
    which was written beside these weights.
    """
    check_file(file)
    masks, described = read_mask_file(file, name=f"`{file}`")
    models = [Kept(tasks, {}) for tasks in described.get("tasks", [])]
    for name, mask in masks.items():
        number, _, path = name.partition(".")
        shared = _shared(weights[path]) if path in weights else np.zeros(0, np.bool_)
        if mask.shape != (int(shared.sum()),):
            raise ValueError(
                f"Mask `{name}` in `{file}` must fit the shared weights, but is of other ones."
            )
        whole = np.zeros_like(shared)
        whole[shared] = mask.unpacked()
        models[int(number)].masks[path] = Mask.of(whole)
    return models


def _shared(weight: Tensor) -> NDArray[np.bool_]:
    """Return where weights are that any model keeps."""
    kept: NDArray[np.bool_] = (weight.detach() != 0).cpu().numpy()
    return kept
