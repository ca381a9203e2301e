"""Bitmask storage of pruned weights: nonzero values and a deflated mask in safetensors.

``compressed-tensors`` 0.20 would not do: it has dropped its sparse compressors (only their
configurations are left), never coded its masks below one bit a weight, and needs ``loguru``,
``psutil`` and ``pydantic`` besides.

The file holds a tensor ``<name>`` as it is where nothing is saved, and else ``<name>.values``, the
weights that are not +0.0 in row-major order, of shape (count,), beside ``<name>.mask``, which says
where they stand (``multiprune.runs.masks``). The header's metadata (``multiprune.runs.header``)
have the key ``multiprune.bitmask``, and describe for each name its ``shape`` and the ``checksums``
of what is stored: the CRC-32 of a stored tensor's dtype, shape and bytes.
"""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from multiprune.runs.header import Header, check_names
from multiprune.runs.masks import Mask

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

KEY = "multiprune.bitmask"
HEADER = Header(KEY, version=2)

#: Bytes that compression must save, because a compressed tensor takes more of the header.
OVERHEAD = 256

#: Integers as wide as a weight: bits are compared and moved as numbers of these types.
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Entry:
    """What the header says of one tensor; there is one checksum where it is stored as it is."""

    shape: list[int]
    checksums: list[int]

    def parts(self, name: str) -> list[str]:
        """Return the names under which the tensor is stored, in the order of ``checksums``."""
        return [name] if len(self.checksums) == 1 else [f"{name}.values", f"{name}.mask"]


def compress(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return what is stored, on the CPU, and the metadata that ``decompress`` needs with it."""
    stored: dict[str, Tensor] = {}
    entries: dict[str, Entry] = {}
    for name, tensor in tensors.items():
        parts = _split(tensor.detach().cpu().contiguous())
        entries[name] = Entry(list(tensor.shape), [_checksum(part) for part in parts])
        for key, part in zip(entries[name].parts(name), parts, strict=True):
            if key in stored:
                raise ValueError(f"Two tensors must not be stored as `{key}`, but `{name}` is too.")
            stored[key] = part
    return stored, HEADER.write({name: asdict(entry) for name, entry in entries.items()})


def decompress(
    names: Collection[str], read: Callable[[str], Tensor], metadata: Mapping[str, str]
) -> dict[str, Tensor]:
    """Return the dense tensors that ``compress`` was given, bit for bit.

    ``read`` is asked for what is stored under ``names``, one tensor's parts at a time.

    Raises a ValueError, one sentence, where a tensor is missing, is too many or was damaged, or
    where the version is not known.
    """
    entries = {name: Entry(**entry) for name, entry in HEADER.read(metadata).items()}
    check_names(names, {part for name, entry in entries.items() for part in entry.parts(name)})
    return {name: _restore(name, entry, read) for name, entry in entries.items()}


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
            return decompress(
                stored.keys(), lambda name: stored.get_tensor(name).clone(), stored.metadata() or {}
            )
    except SafetensorError as error:
        raise ValueError(f"`{file}` must be a whole safetensors file, but: {error}.") from error
    except ValueError as error:
        raise ValueError(f"In `{file}`: {error}") from error


def _split(tensor: Tensor) -> list[Tensor]:
    """Return values and mask, or the tensor itself where that is less."""
    if not tensor.is_floating_point():
        return [tensor]
    bits = tensor.flatten().view(INTEGERS[tensor.itemsize])
    dense = tensor.nbytes - OVERHEAD
    if int(bits.count_nonzero()) * tensor.itemsize >= dense:
        return [tensor]
    mask = (bits != 0).numpy()
    written = Mask.of(mask).deflated()
    values = torch.from_numpy(bits.numpy()[np.flatnonzero(mask)]).view(tensor.dtype)
    if values.nbytes + len(written) >= dense:
        return [tensor]
    return [values, torch.frombuffer(bytearray(written), dtype=torch.uint8)]


def _restore(name: str, entry: Entry, read: Callable[[str], Tensor]) -> Tensor:
    """Return one dense tensor."""
    parts = [read(key) for key in entry.parts(name)]
    for key, part, expected in zip(entry.parts(name), parts, entry.checksums, strict=True):
        if _checksum(part) != expected:
            raise ValueError(f"Stored tensor `{key}` must match its checksum, but was changed.")
    if len(parts) == 1:
        return parts[0]
    values, written = parts
    dense = torch.zeros(entry.shape, dtype=values.dtype)
    integers = INTEGERS[values.itemsize]
    try:
        mask = Mask.inflated(written.numpy().tobytes(), [dense.numel()])
        positions = np.flatnonzero(mask.unpacked())
        if len(positions) != len(values):
            raise ValueError(f"{len(positions)} bits are set for {len(values)} values")
    except ValueError as error:
        raise ValueError(f"Mask of `{name}` must fit its values and shape, but {error}.") from error
    dense.view(-1).view(integers).numpy()[positions] = values.view(integers).numpy()
    return dense


def _checksum(stored: Tensor) -> int:
    """Return the CRC-32 of a tensor's dtype, shape and bytes."""
    kind = f"{stored.dtype} {list(stored.shape)}".encode()
    # a tensor without elements may have strides that a view refuses
    content = stored.reshape(-1).view(torch.uint8).numpy().data if stored.numel() else b""
    return zlib.crc32(content, zlib.crc32(kind))
