"""Losses of batches without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def no_loss(logits: Tensor) -> Tensor:
    """Return 0, whose gradients are 0: the mean over no labels would be undefined."""
    return logits[:0].float().sum()
