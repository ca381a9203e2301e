"""Pruned weights on disk: nonzero values and an entropy-coded mask, in one safetensors file.

``compressed-tensors`` 0.20 would not do: it has dropped its sparse compressors (only their
configurations are left), never coded its masks below one bit a weight, and needs ``loguru``,
``psutil`` and ``pydantic`` besides.

The file holds a tensor ``<name>`` as it is where nothing is saved, and else ``<name>.values``, the
weights that are not +0.0 in row-major order, of shape (count,), beside ``<name>.mask``, the bytes
of ``multiprune.export.mask``. The header's metadata has one key (safetensors writes several in
random order), ``multiprune.bitmask``: JSON with ``version``; ``tensors``, for each name the
``coding`` of its mask (null where it is dense), its ``shape``, and the ``checksums`` of what is
stored; and ``checksum``, the CRC-32 of ``tensors`` as compact JSON with sorted keys. The checksum
of a stored tensor is the CRC-32 of its dtype, its shape and its bytes.
"""

from __future__ import annotations

import json
import uuid
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from multiprune.export import mask as masks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

KEY = "multiprune.bitmask"
VERSION = 1

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
        entries[name] = Entry(coding, list(tensor.shape), [_checksum(part) for part in parts])
        for key, part in zip(entries[name].parts(name), parts, strict=True):
            if key in stored:
                raise ValueError(f"Two tensors must not be stored as `{key}`, but `{name}` is too.")
            stored[key] = part
    described = {name: asdict(entry) for name, entry in entries.items()}
    header = {"version": VERSION, "checksum": _crc(described), "tensors": described}
    return stored, {KEY: json.dumps(header, separators=(",", ":"))}


def decompress(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the dense tensors that ``compress`` was given, bit for bit.

    Raises a ValueError, one sentence, where a tensor is missing, is too many or was damaged, or
    where the version is not known.
    """
    return _decompress(tensors.keys(), tensors.__getitem__, metadata)


def save_bitmask(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors to ``file``, all of it or nothing; the same tensors give the same bytes.

    Dense tensors must not share memory: safetensors refuses them with a RuntimeError.
    """
    stored, metadata = compress(tensors)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
    try:
        beside.touch()
        # safetensors writes for the owner alone; what is shipped is as open as other files.
        mode = beside.stat().st_mode & 0o666
        save_file(stored, beside, metadata)
        beside.chmod(mode)
        beside.replace(file)
    except SafetensorError as error:
        raise OSError(f"`{file}` must be writable, but {error}.") from error
    finally:
        beside.unlink(missing_ok=True)


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
    entries = _entries(metadata)
    described = {part for name, entry in entries.items() for part in entry.parts(name)}
    for name in sorted(described.symmetric_difference(names)):
        wrong = "is missing" if name in described else "is there besides"
        raise ValueError(
            f"Stored tensors must be those that the metadata name, but `{name}` {wrong}."
        )
    return {name: _restore(name, entry, read) for name, entry in entries.items()}


def _entries(metadata: Mapping[str, str]) -> dict[str, Entry]:
    """Return the metadata's entries by name, once version and checksum are found to be right."""
    if KEY not in metadata:
        raise ValueError(f"Metadata must have the key `{KEY}`, but have {sorted(metadata)}.")
    try:
        header = json.loads(metadata[KEY])
    except json.JSONDecodeError as error:
        raise ValueError(f"Metadata `{KEY}` must be JSON, but {error}.") from error
    version = header.get("version") if isinstance(header, dict) else None
    if version != VERSION:
        raise ValueError(f"Version of `{KEY}` must be {VERSION}, but is {version!r}.")
    tensors = header.get("tensors")
    if _crc(tensors) != header.get("checksum"):
        raise ValueError(f"Metadata `{KEY}` must match their checksum, but were changed.")
    return {name: Entry(**entry) for name, entry in tensors.items()}


def _restore(name: str, entry: Entry, read: Callable[[str], Tensor]) -> Tensor:
    """Return one dense tensor."""
    parts = [read(key) for key in entry.parts(name)]
    for key, part, checksum in zip(entry.parts(name), parts, entry.checksums, strict=True):
        if _checksum(part) != checksum:
            raise ValueError(f"Stored tensor `{key}` must match its checksum, but was changed.")
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


def _checksum(stored: Tensor) -> int:
    """Return the CRC-32 of a tensor's dtype, shape and bytes."""
    kind = f"{stored.dtype} {list(stored.shape)}".encode()
    # a tensor without elements may have strides that a view refuses
    content = stored.reshape(-1).view(torch.uint8).numpy().data if stored.numel() else b""
    return zlib.crc32(content, zlib.crc32(kind))


def _crc(described: object) -> int:
    """Return the CRC-32 of what the metadata say, as compact JSON with sorted keys."""
    return zlib.crc32(json.dumps(described, separators=(",", ":"), sort_keys=True).encode())
