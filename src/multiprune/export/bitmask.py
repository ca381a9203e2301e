"""Pruned weights on disk: nonzero values and an entropy-coded mask, in one safetensors file.

``compressed-tensors`` 0.20 would not do: it has dropped its sparse compressors (only their
configurations are left), never coded its masks below one bit a weight, and needs ``loguru``,
``psutil`` and ``pydantic`` besides.

The file holds a tensor ``<name>`` as it is where nothing is saved, and else ``<name>.values``, the
weights that are not +0.0 in row-major order, of shape (count,), beside ``<name>.mask``, the bytes
of ``multiprune.export.mask``. The header's metadata (``multiprune.export.header``) have the key
``multiprune.bitmask``, and describe for each name the ``coding`` of its mask (null where it is
dense), its ``shape``, and the ``checksums`` of what is stored.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from multiprune.export import mask as masks
from multiprune.export.header import Header, check_names, check_stored, checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

KEY = "multiprune.bitmask"
HEADER = Header(KEY, version=1)

#: Bytes that compression must save, because a compressed tensor takes more of the header.
OVERHEAD = 256

#: Integers as wide as a weight: bits are compared and moved as numbers of these types.
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Entry:
    """What the header says of one tensor; ``coding`` is None where it is stored as it is."""

    coding: str | None
    shape: list[int]
    checksums: list[int]

    def parts(self, name: str) -> list[str]:
        """Return the names under which the tensor is stored, in the order of ``checksums``."""
        return [name] if self.coding is None else [f"{name}.values", f"{name}.mask"]


def compress(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return what is stored, on the CPU, and the metadata that ``decompress`` needs with it."""
    stored: dict[str, Tensor] = {}
    entries: dict[str, Entry] = {}
    for name, tensor in tensors.items():
        coding, parts = _split(tensor.detach().cpu().contiguous())
        entries[name] = Entry(coding, list(tensor.shape), [checksum(part) for part in parts])
        for key, part in zip(entries[name].parts(name), parts, strict=True):
            if key in stored:
                raise ValueError(f"Two tensors must not be stored as `{key}`, but `{name}` is too.")
            stored[key] = part
    return stored, HEADER.write({name: asdict(entry) for name, entry in entries.items()})


def decompress(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the dense tensors that ``compress`` was given, bit for bit.

    Raises a ValueError, one sentence, where a tensor is missing, is too many or was damaged, or
    where the version is not known.
    """
    return _decompress(tensors.keys(), tensors.__getitem__, metadata)


def save_bitmask(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors to ``file``; the same tensors give the same bytes.

    Dense tensors must not share memory: safetensors refuses them with a RuntimeError.
    """
    # Without a copy of a large model in memory, as bytes to be written would be. A hidden file that
    # safetensors leaves if it is killed goes with the exported folder, which is removed as a whole.
    stored, metadata = compress(tensors)
    save_file(stored, file, metadata)


def load_bitmask(file: Path) -> dict[str, Tensor]:
    """Return the dense tensors of a file that ``save_bitmask`` wrote, restored one by one.

    Raises a ValueError, one sentence that names ``file``, where it is not such a file, all of it.
    """
    try:
        with safe_open(file, "pt") as stored:
            # copies, because safetensors maps the file: writing to it would change the tensors
            return _decompress(
                stored.keys(), lambda name: stored.get_tensor(name).clone(), stored.metadata() or {}
            )
    except SafetensorError as error:
        raise ValueError(f"`{file}` must be a whole safetensors file, but: {error}.") from error
    except ValueError as error:
        raise ValueError(f"In `{file}`: {error}") from error


def _split(tensor: Tensor) -> tuple[str | None, list[Tensor]]:
    """Return values and mask behind the mask's coding, or the tensor itself where that is less."""
    if not tensor.is_floating_point():
        return None, [tensor]
    bits = tensor.flatten().view(INTEGERS[tensor.itemsize])
    dense = tensor.nbytes - OVERHEAD
    if int(bits.count_nonzero()) * tensor.itemsize >= dense:
        return None, [tensor]
    mask = (bits != 0).numpy()
    coding, written = masks.encode(mask)
    values = torch.from_numpy(bits.numpy()[np.flatnonzero(mask)]).view(tensor.dtype)
    if values.nbytes + len(written) >= dense:
        return None, [tensor]
    return coding, [values, torch.frombuffer(bytearray(written), dtype=torch.uint8)]


def _decompress(
    names: Collection[str], read: Callable[[str], Tensor], metadata: Mapping[str, str]
) -> dict[str, Tensor]:
    """Return the dense tensors; ``read`` is asked for one tensor's parts at a time."""
    entries = {name: Entry(**entry) for name, entry in HEADER.read(metadata).items()}
    check_names(names, {part for name, entry in entries.items() for part in entry.parts(name)})
    return {name: _restore(name, entry, read) for name, entry in entries.items()}


def _restore(name: str, entry: Entry, read: Callable[[str], Tensor]) -> Tensor:
    """Return one dense tensor."""
    parts = [read(key) for key in entry.parts(name)]
    for key, part, expected in zip(entry.parts(name), parts, entry.checksums, strict=True):
        check_stored(key, part, expected)
    if entry.coding is None:
        return parts[0]
    values, written = parts
    dense = torch.zeros(entry.shape, dtype=values.dtype)
    integers = INTEGERS[values.itemsize]
    source, target = values.view(integers).numpy(), dense.view(-1).view(integers).numpy()
    mask = masks.decode(
        entry.coding, written.numpy().tobytes(), size=len(target), count=len(source)
    )
    done = 0
    try:
        for start, positions in mask:
            target[start:][positions] = source[done : done + len(positions)]
            done += len(positions)
    except ValueError as error:
        raise ValueError(f"Mask of `{name}` must fit its values and shape, but {error}.") from error
    return dense
