"""Masks as bits in a safetensors file.

A file holds a tensor for each mask: eight entries to a byte in row-major order, the first one
lowest, the last byte filled up with zeros, and deflated, to little more than their entropy. Its
metadata (``multiprune.runs.header``) have the key ``multiprune.masks``, and hold the ``shapes`` of
the masks by name, and what else belongs to them. zlib notices damage to a mask.

Deflate codes at least one bit per byte, and so eight zeros in one bit at best: random masks of a
density of 2 % take a third more than the gaps between set bits would, and of 10 % on nothing more.
``zstandard`` 0.25, even at level 19, is larger below a density of 20 % and hardly smaller above.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from multiprune.runs.atomic import atomic_file
from multiprune.runs.header import Header, check_names
from multiprune.runs.schema import check_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

FILE = "masks.safetensors"
HEADER = Header("multiprune.masks", version=2)

_SHAPES = dict[str, list[Annotated[int, Field(gt=0)]]]


@dataclass(frozen=True)
class Mask:
    """A boolean array, eight entries to a byte, the first one lowest."""

    bits: NDArray[np.uint8]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, kept: NDArray[np.bool_]) -> Mask:
        """Pack a boolean array."""
        return cls(np.packbits(kept, bitorder="little"), kept.shape)

    @classmethod
    def inflated(cls, written: bytes, shape: Sequence[int]) -> Mask:
        """Return the mask of a shape that ``deflated`` wrote.

        Raises a ValueError where ``written`` is of another size or damaged, and never inflates more
        than such a mask takes.
        """
        size = (prod(shape) + 7) // 8
        inflater = zlib.decompressobj()
        try:
            # One byte more than fits, because zlib takes 0 for "no limit".
            bits = inflater.decompress(written, size + 1)
        except zlib.error as error:
            raise ValueError(f"zlib says: {error}") from error
        if not inflater.eof or len(bits) != size:
            raise ValueError(f"it is not the whole of {prod(shape)} bits")
        return cls(np.frombuffer(bytearray(bits), np.uint8), tuple(shape))

    @property
    def size(self) -> int:
        """The number of entries."""
        return prod(self.shape)

    def unpacked(self) -> NDArray[np.bool_]:
        """Return the boolean array that was packed."""
        bits = np.unpackbits(self.bits, count=self.size, bitorder="little")
        return bits.view(np.bool_).reshape(self.shape)

    def deflated(self) -> bytes:
        """Return the smallest of what zlib's fast strategies make of the bits.

        Huffman codes alone suit random masks, runs suit pruned rows, and matches pruned columns.
        """
        written = []
        for strategy in (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_DEFAULT_STRATEGY):
            compressor = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
            written.append(compressor.compress(self.bits.data) + compressor.flush())
        return min(written, key=len)


#: By path.
Masks = dict[str, Mask]


def write_masks(folder: Path, masks: Mapping[str, Tensor]) -> None:
    """Write what a run has kept, boolean tensors by path, as ``masks.safetensors``."""
    write_mask_file(
        folder / FILE, {path: Mask.of(mask.cpu().numpy()) for path, mask in masks.items()}
    )


def read_masks(folder: Path, density: Mapping[str, float]) -> Masks:
    """Read what a run has kept, by path as in ``density``, of its record.

    Raises:
        FileNotFoundError: if it has not saved its masks.
        ValueError: if nothing was pruned, or the file is damaged.
    """
    if not density:
        raise ValueError("nothing was pruned")
    if not (folder / FILE).is_file():
        raise FileNotFoundError(f"it has no {FILE}")
    masks, _ = read_mask_file(folder / FILE, name=FILE)
    if differing := sorted(masks.keys() ^ density.keys()):
        raise ValueError(f"{FILE} must hold what was pruned, but {differing[0]} is not in both")
    return masks


def write_mask_file(file: Path, masks: Mapping[str, Mask], **described: Any) -> dict[str, int]:
    """Write masks, and what else describes them; return the bytes that each mask takes."""
    stored = {name: np.frombuffer(mask.deflated(), np.uint8) for name, mask in masks.items()}
    described["shapes"] = {name: mask.shape for name, mask in masks.items()}
    with atomic_file(file) as beside:
        beside.write_bytes(save(stored, HEADER.write(described)))
    return {name: one.nbytes for name, one in stored.items()}


def read_mask_file(file: Path, *, name: str) -> tuple[Masks, dict[str, Any]]:
    """Return masks by name, and what describes them.

    Raises a ValueError, one sentence that calls the file ``name``, where it is not such a file, all
    of it.
    """
    try:
        with safe_open(file, "np") as stored:
            metadata = stored.metadata() or {}
            is_older = "shapes" in metadata
            described = (
                {"shapes": json.loads(metadata["shapes"])} if is_older else HEADER.read(metadata)
            )
            check_schema(_SHAPES, described.get("shapes"), name="its metadata")
            check_names(stored.keys(), described["shapes"])
            read = _older if is_older else _deflated
            masks = {
                path: read(path, stored.get_tensor(path), shape)
                for path, shape in described["shapes"].items()
            }
    except (SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{name} must be whole, but: {error}") from error
    return masks, described


def _deflated(path: str, stored: NDArray[Any], shape: Sequence[int]) -> Mask:
    try:
        return Mask.inflated(stored.tobytes(), shape)
    except ValueError as error:
        raise ValueError(f"{path} must fit its shape {list(shape)}, but {error}") from error


def _older(path: str, stored: NDArray[Any], shape: Sequence[int]) -> Mask:
    """Return a mask that a run left before masks were deflated: its first entry is highest."""
    size = (prod(shape) + 7) // 8
    if stored.dtype != np.uint8 or stored.shape != (size,):
        raise ValueError(f"{path} has not the {size:,} bytes of its shape {list(shape)}")
    return Mask.of(np.unpackbits(stored, count=prod(shape)).view(np.bool_).reshape(shape))
