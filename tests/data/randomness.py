"""A task in a module of its own, which workers import."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from typing_extensions import override

from multiprune.tasks.classification import Classification

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.tasks.task import Batch


class DrawsRandomNumbers(Classification):
    """Changes the random states of the process that makes a batch."""

    @override
    def corrupted(self, batch: Batch, draw: Sequence[int]) -> Batch:
        torch.rand(3)
        np.random.rand(3)
        return super().corrupted(batch, draw)
