"""Resamples of examples: how often each resample has each example."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

Numbers = NDArray[np.float64]

#: Resamples of the examples of each task.
DRAWS = 1_000

#: Weights that are held at a time.
BLOCK = 1 << 23


def resamples_of(split: str, task: str, examples: int) -> Iterator[torch.Tensor]:
    """Draw the resamples of a task, independently of those of others; in blocks."""
    return resamples(examples, DRAWS, seed=crc32(f"{split}/{task}".encode()))


def resamples(examples: int, count: int, *, seed: int) -> Iterator[torch.Tensor]:
    """Draw as many examples as there are with replacement, ``count`` times; in blocks of those."""
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK // examples)
    for start in range(0, count, rows):
        drawn = [
            np.bincount(generator.integers(examples, size=examples), minlength=examples)
            for _ in range(min(rows, count - start))
        ]
        yield torch.from_numpy(np.array(drawn, np.float32))
