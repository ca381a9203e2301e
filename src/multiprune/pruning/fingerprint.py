"""Fingerprints of masks, to compare ranks and runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn import functional

# An odd constant with well-mixed bits (the golden ratio times 2^63), as in Fibonacci hashing.
_MULTIPLIER = 0x9E3779B97F4A7C15 - (1 << 64)


def mask_checksums(masks: Mapping[str, Bool[Tensor, "..."]]) -> Int64[Tensor, "{len(masks)}"]:
    """Return one checksum a mask, computed on the masks' device."""
    return torch.stack([_checksum(mask) for mask in masks.values()])


def mask_digest(masks: Mapping[str, Bool[Tensor, "..."]]) -> str:
    """Return a SHA-256 of all masks with their paths, one bit a weight."""
    digest = hashlib.sha256()
    for path, mask in sorted(masks.items()):
        digest.update(path.encode())
        digest.update(_packed_bits(mask))
    return digest.hexdigest()


def _checksum(mask: Bool[Tensor, "..."]) -> Int64[Tensor, ""]:
    bits = mask.reshape(-1).view(torch.uint8)
    words = functional.pad(bits, (0, -bits.numel() % 8)).view(torch.int64) * _MULTIPLIER
    words ^= words >> 32  # a word's high bits would meet only the low bits of its factor
    position = torch.arange(1, words.numel() + 1, device=mask.device) * _MULTIPLIER
    return (words * (position ^ (position >> 29) | 1)).sum()


def _packed_bits(mask: Bool[Tensor, "..."]) -> bytes:
    bits = mask.detach().cpu().reshape(-1).view(torch.uint8)
    octets = functional.pad(bits, (0, -bits.numel() % 8)).view(-1, 8)
    place = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)
    packed: bytes = (octets * place).sum(1, dtype=torch.uint8).numpy().tobytes()
    return packed
