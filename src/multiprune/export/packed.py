"""Which of shared weights each of several models keeps, in one safetensors file.

The file holds tensors ``<model>.<tensor>``, models numbered from 0: the bytes of
``multiprune.export.mask`` for those of the tensor's shared weights that the model keeps, counted in
row-major order over the shared weights that are not zero. Tensors that the model keeps whole have
none. The header's metadata (``multiprune.export.header``) have the key ``multiprune.masks``, and
describe for each model its ``tasks``, and its ``masks``: by tensor, the ``coding``, the ``count``
of weights that are kept, and the ``checksum`` of what is stored.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from multiprune.export import mask as masks
from multiprune.export.checkpoint import check_file
from multiprune.export.header import Header, check_names, check_stored, checksum

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

MASKS = "shared.masks.safetensors"
HEADER = Header("multiprune.masks", version=1)

#: What each byte of a packed mask stands for, shape (256, 8): -1 where a bit is set, or else 0.
_ENTRIES = -((torch.arange(256).unsqueeze(-1) >> torch.arange(8)) & 1)


@dataclass(frozen=True)
class Kept:
    """What one of the models keeps of shared weights.

    Attributes:
        tasks: what the model answers.
        masks: by tensor, what is kept, as ``pack_bits`` returns it; other tensors are kept whole.
    """

    tasks: Sequence[str]
    masks: Mapping[str, Tensor]


@dataclass(frozen=True)
class Entry:
    """What the header says of one mask."""

    coding: str
    count: int
    checksum: int


def pack_bits(mask: Tensor) -> Tensor:
    """Return a boolean mask as bytes on the CPU, eight entries each, the first one lowest."""
    written = masks.PackedBits().encode(mask.cpu().reshape(-1).numpy())
    return torch.frombuffer(bytearray(written), dtype=torch.uint8)


def unpack_bits(packed: Tensor, shape: Sequence[int], dtype: torch.dtype = torch.bool) -> Tensor:
    """Return the mask of a shape that ``pack_bits`` was given, on the device of ``packed``.

    As integers, kept entries have all bits set, and the others none.
    """
    size = torch.Size(shape)
    rows = _ENTRIES.to(packed.device, dtype).index_select(0, packed.int())
    return rows.view(-1)[: size.numel()].view(size)


def save_masks(models: Sequence[Kept], weights: Mapping[str, Tensor], file: Path) -> list[int]:
    """Write what models keep of shared weights; return the bytes that each one's masks take."""
    stored: dict[str, Tensor] = {}
    described: dict[str, dict[str, Any]] = {}
    sizes = []
    for number, model in enumerate(models):
        entries, size = {}, 0
        for path, packed in model.masks.items():
            shape = weights[path].shape
            if (written := _encode(unpack_bits(packed, shape), weights[path])) is not None:
                entries[path], stored[f"{number}.{path}"] = asdict(written[0]), written[1]
                size += written[1].nbytes
        described[str(number)] = {"tasks": list(model.tasks), "masks": entries}
        sizes.append(size)
    save_file(stored, file, HEADER.write(described))
    return sizes


def load_masks(file: Path, weights: Mapping[str, Tensor]) -> list[Kept]:
    """Return what models keep of shared weights.

    Raises a ValueError, one sentence that names ``file``, where that is not the whole of a file
    which was written beside these weights.
    """
    check_file(file)
    try:
        with safe_open(file, "pt") as stored:
            described = HEADER.read(stored.metadata() or {})
            names = [f"{n}.{path}" for n, one in described.items() for path in one["masks"]]
            check_names(stored.keys(), names)

            def read(name: str, entry: Mapping[str, Any], weight: Tensor) -> Tensor:
                return _decode(name, stored.get_tensor(name), Entry(**entry), weight)

            return [
                Kept(
                    one["tasks"],
                    {
                        path: read(f"{n}.{path}", entry, weights[path])
                        for path, entry in one["masks"].items()
                    },
                )
                for n, one in described.items()
            ]
    except SafetensorError as error:
        raise ValueError(f"`{file}` must be a whole safetensors file, but: {error}.") from error
    except KeyError as error:
        raise ValueError(
            f"`{file}` must hold masks of the shared weights, but {error} is none of them."
        ) from error
    except ValueError as error:
        raise ValueError(f"In `{file}`: {error}") from error


def _encode(mask: Tensor, weight: Tensor) -> tuple[Entry, Tensor] | None:
    """Return what is stored of a mask; nothing where all shared weights are kept."""
    kept = mask.reshape(-1).numpy()[_shared(weight)]
    if kept.all():
        return None
    coding, written = masks.encode(kept)
    stored = torch.frombuffer(bytearray(written), dtype=torch.uint8)
    return Entry(coding, int(kept.sum()), checksum(stored)), stored


def _decode(key: str, stored: Tensor, entry: Entry, weight: Tensor) -> Tensor:
    check_stored(key, stored, entry.checksum)
    shared = _shared(weight)
    mask = np.zeros(weight.numel(), np.bool_)
    written = stored.numpy().tobytes()
    try:
        for start, positions in masks.decode(
            entry.coding, written, size=len(shared), count=entry.count
        ):
            mask[shared[start:][positions]] = True
    except ValueError as error:
        raise ValueError(f"Mask `{key}` must fit the shared weights, but {error}.") from error
    return pack_bits(torch.from_numpy(mask))


def _shared(weight: Tensor) -> NDArray[np.int64]:
    """Return where weights are that any model keeps, in row-major order."""
    return np.flatnonzero((weight.detach().cpu() != 0).numpy())
