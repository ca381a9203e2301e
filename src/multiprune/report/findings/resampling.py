"""Resamples of examples: how often each resample has each example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

Numbers = NDArray[np.float64]

#: Weights that are held at a time.
BLOCK = 1 << 23


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
