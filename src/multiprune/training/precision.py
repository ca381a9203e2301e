"""Choose the precision of training."""

from __future__ import annotations

import torch


def best_precision(*, cpu: bool = False) -> str:
    """Return bf16 on a GPU that computes in it, otherwise fp32, as Lightning's Trainer spells them.

    With ``cpu``, bf16 on a processor that computes in it, too: one that does not takes ten times as
    long as in fp32.
    """
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if cpu and _cpu_has_bf16() else "32-true"


def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies matrices in bf16; False where torch does not tell."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    found = [getattr(torch.cpu, name, None) for name in asked]
    return any(ask() for ask in found if ask is not None)
