"""Sums over all ranks of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def summed(parts: Sequence[Tensor]) -> list[Tensor]:
    """Return the sums over all processes, each of which has seen its own part of the batch.

    All must call it at the same step, with tensors of the same shapes.
    """
    distributed = torch.distributed
    if not parts or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return list(parts)
    flat = torch.cat([part.reshape(-1) for part in parts])
    distributed.all_reduce(flat)
    pieces = torch.split(flat, [part.numel() for part in parts])
    return [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]
