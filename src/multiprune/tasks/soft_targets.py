"""Distillation losses on logits: soft targets of Hinton et al. (2015).

Softer distributions have smaller gradients, by the temperature squared; multiplied with it the
losses weigh the same whatever the temperature (section 2 of the paper).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from multiprune.tasks.losses import no_loss

if TYPE_CHECKING:
    from torch import Tensor


def softened_divergence(
    student: Tensor, teacher: Tensor, temperature: float, rows: Tensor | None = None
) -> Tensor:
    """Return ``T^2 KL(softmax(teacher / T) || softmax(student / T))``, the mean over rows.

    Its gradient is that of the paper's cross-entropy; unlike it, it is 0 where both agree, and
    where there are no rows. Both are of shape (..., classes); ``rows``, of shape (...), says which
    count, all by default.
    """
    expected = functional.log_softmax(teacher.float() / temperature, -1)
    found = functional.log_softmax(student.float() / temperature, -1)
    divergence = (expected.exp() * (expected - found)).sum(-1)
    if rows is None:
        return divergence.sum() / max(1, divergence.numel()) * temperature**2
    return torch.where(rows, divergence, 0).sum() / rows.sum().clamp(min=1) * temperature**2


def softened_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``T^2 H(sigmoid(teacher / T), sigmoid(student / T))``, the mean over all decisions.

    It is 0 where there are none.
    """
    if not len(student):
        return no_loss(student)
    return (
        functional.binary_cross_entropy_with_logits(
            student.float() / temperature, (teacher.float() / temperature).sigmoid()
        )
        * temperature**2
    )
