"""The hard concrete distribution.

The hard concrete distribution is of Louizos, Welling & Kingma (2018), "Learning Sparse Neural
Networks through L0 Regularization"; the constraint on the size, an augmented Lagrangian, is of
Wang, Wohlwend & Lei (2020), "Structured Pruning of Large Language Models".

Gates are constant from one optimizer step to the next, so that gradients of micro-batches add up
and those of ranks can be averaged. They take no part in autograd: where an input ``x[j]`` of a
linear layer is multiplied by ``z[j]``, backward leaves all there is to know about the gate on the
layer's weight (``gate_gradient``).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Louizos et al.: temperature, and the interval to which the concrete is stretched.
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


def sampled_gates(
    log_alpha: Float[Tensor, "*gates"], noise: Float[Tensor, "*gates"]
) -> Float[Tensor, "*gates"]:
    """Return the gates for ``noise``, uniform in (0, 1) (Louizos et al., equations 10 and 11)."""
    concrete = torch.sigmoid((torch.logit(noise) + log_alpha) / BETA)
    return _stretched(concrete)


def estimated_gates(log_alpha: Float[Tensor, "*gates"]) -> Float[Tensor, "*gates"]:
    """Return the gates to evaluate with (Louizos et al., equation 13)."""
    return _stretched(torch.sigmoid(log_alpha))


def open_probability(log_alpha: Float[Tensor, "*gates"]) -> Float[Tensor, "*gates"]:
    """Return the probability that a gate is not 0 (Louizos et al., equation 12)."""
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def sample_derivative(gates: Float[Tensor, "*gates"]) -> Float[Tensor, "*gates"]:
    """Return the derivative of sampled gates with respect to ``log_alpha``, 0 at 0 and at 1.

    A gate within (0, 1) tells the concrete ``s`` it came from, and ``ds / dlog_alpha`` is
    ``s (1 - s) / beta``.
    """
    concrete = (gates - GAMMA) / (ZETA - GAMMA)
    return concrete * (1 - concrete) * ((ZETA - GAMMA) / BETA) * _within(gates)


def gate_gradient(
    weight: Float[Tensor, "out in"],
    gradient: Float[Tensor, "out in"],
    gates: Float[Tensor, "gates"],
) -> Float[Tensor, "gates"]:
    """Return the loss's gradient with respect to gates on the inputs of a linear layer.

    With ``y = W (z * x)``, ``sum_i W[i, j] dL/dW[i, j]`` is ``z[j] dL/dz[j]``. It is 0 for a gate
    that is clipped, at 0 or at 1. Each gate is that of ``in / len(gates)`` inputs in a row.
    """
    product = (weight * gradient).sum(0).view(len(gates), -1).sum(1)
    return torch.where(_within(gates), product / gates, 0)


def lagrangian(
    size: Float[Tensor, ""], target: Float[Tensor, ""], multipliers: Float[Tensor, "2"]
) -> Float[Tensor, ""]:
    """Return ``l1 (s - t) + l2 (s - t)^2``, the penalty on the size (Wang et al.).

    The gates descend on it, the two ``multipliers`` ascend.
    """
    over = size - target
    return multipliers[0] * over + multipliers[1] * over**2


def lagrangian_size_derivative(
    size: Float[Tensor, ""], target: Float[Tensor, ""], multipliers: Float[Tensor, "2"]
) -> Float[Tensor, ""]:
    """Return the derivative of the penalty with respect to the size."""
    return multipliers[0] + 2 * multipliers[1] * (size - target)


def lagrangian_multipliers_gradient(
    size: Float[Tensor, ""], target: Float[Tensor, ""]
) -> Float[Tensor, "2"]:
    """Return the gradient of the penalty with respect to its two multipliers."""
    over = size - target
    return torch.stack([over, over**2])


def uniform_noise(like: Float[Tensor, "*gates"], seed: int, step: int) -> Float[Tensor, "*gates"]:
    """Return numbers in (0, 1) that depend on ``seed`` and ``step`` alone, one a gate."""
    words = np.random.SeedSequence([seed, step]).generate_state(1)
    generator = torch.Generator(like.device).manual_seed(int(words[0]))
    noise = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    return noise.clamp_(1e-6, 1 - 1e-6)


def _stretched(concrete: Float[Tensor, "*gates"]) -> Float[Tensor, "*gates"]:
    return (concrete * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def _within(gates: Float[Tensor, "*gates"]) -> Bool[Tensor, "*gates"]:
    return (gates > 0) & (gates < 1)
