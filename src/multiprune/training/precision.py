"""Which number format to train in."""

from __future__ import annotations

import torch


def best_precision() -> str:
    """Return bf16 on a GPU that has it, otherwise fp32, as Lightning's Trainer spells them."""
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16-mixed" if has_bf16 else "32-true"
