"""``masks.safetensors``: what a run has kept, as bits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from multiprune.runs.atomic import atomic_file
from multiprune.runs.schema import check_schema

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

FILE = "masks.safetensors"


@dataclass(frozen=True)
class Mask:
    """A boolean tensor, eight bits to a byte."""

    bits: NDArray[np.uint8]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, kept: NDArray[np.bool_]) -> Mask:
        """Pack a boolean array."""
        return cls(np.packbits(kept), kept.shape)

    @property
    def size(self) -> int:
        """The number of bits."""
        return int(np.prod(self.shape))


Masks = dict[str, Mask]


def write_masks(folder: Path, masks: Mapping[str, Tensor]) -> None:
    """Write what a run has kept, boolean tensors by path, as ``masks.safetensors``: bits."""
    packed = {path: Mask.of(mask.cpu().numpy()) for path, mask in masks.items()}
    shapes = json.dumps({path: mask.shape for path, mask in packed.items()})
    with atomic_file(folder / FILE) as beside:
        bits = {path: mask.bits for path, mask in packed.items()}
        beside.write_bytes(save(bits, {"shapes": shapes}))


def read_masks(folder: Path, density: Mapping[str, float]) -> Masks:
    """Read what a run has kept, by path as in ``density``, of its record.

    Raises:
        FileNotFoundError: if it has not saved its masks.
        ValueError: if nothing was pruned, or the file is damaged.
    """
    if not density:
        raise ValueError("nothing was pruned")
    file = folder / FILE
    if not file.is_file():
        raise FileNotFoundError(f"it has no {FILE}")
    try:
        with safe_open(file, "np") as stored:
            shapes = json.loads((stored.metadata() or {}).get("shapes", "{}"))
            check_schema(dict[str, list[Annotated[int, Field(gt=0)]]], shapes, name="its metadata")
            masks = {
                path: _whole(Mask(stored.get_tensor(path), tuple(shape)), path)
                for path, shape in shapes.items()
            }
    except (SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{FILE} must be whole, but: {error}") from error
    if differing := sorted(masks.keys() ^ density.keys()):
        raise ValueError(f"{FILE} must hold what was pruned, but {differing[0]} is not in both")
    return masks


def _whole(mask: Mask, path: str) -> Mask:
    size = (prod(mask.shape) + 7) // 8
    if mask.bits.dtype != np.uint8 or mask.bits.shape != (size,):
        raise ValueError(f"{path} has not the {size:,} bytes of its shape {list(mask.shape)}")
    return mask
