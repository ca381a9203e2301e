"""Random gates that are exactly 0 or 1 with a probability that can be learned.

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
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.optim.adam import adam

from multiprune.arguments import check_number
from multiprune.pruning.known_value import KnownValue

if TYPE_CHECKING:
    from torch import nn

# Louizos et al.: temperature, and the interval to which the concrete is stretched.
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
# The authors' code clamps to 1e-2, where a gate that is all but closed still counts 5 %: more than
# a small budget has to give.
_SMALLEST_ALPHA, _LARGEST_ALPHA = 1e-3, 1e2
# A gate of a large model is a millionth of its size, and so is its gradient.
_EPSILON = 1e-15


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


class Gates:
    """Vectors of gates that learn by Adam under a constraint on their expected size.

    All state is in buffers ``gates_*`` of one module, for all vectors in a row; this object holds
    settings. Gates are 1 until ``start`` and after ``stop``. The noise of a step depends on
    ``seed`` and the number of the step alone: ranks agree, and a resumed run repeats it.

    ``drop_rate`` is where gates start: ``log_alpha = log((1 - drop_rate) / drop_rate)``.
    """

    def __init__(
        self, *, drop_rate: float, learning_rate: float, multiplier_learning_rate: float, seed: int
    ) -> None:
        check_number("drop_rate", drop_rate, above=0, below=1)
        check_number("gate_learning_rate", learning_rate, above=0)
        check_number("multiplier_learning_rate", multiplier_learning_rate, above=0)
        check_number("seed", seed, at_least=0, whole=True)
        self.drop_rate, self.seed = drop_rate, seed
        self.learning_rate, self.multiplier_learning_rate = learning_rate, multiplier_learning_rate
        self._learning, self._step = KnownValue(), KnownValue()

    def add_to(
        self,
        module: nn.Module,
        counts: Sequence[int],
        expected_size: Callable[[Sequence[Float[Tensor, "_"]]], Float[Tensor, ""]],
        *,
        starting_open: Sequence[bool] = (),
    ) -> None:
        """Register ``counts`` gates in ``module``.

        ``expected_size`` takes the probabilities to be open, a vector for each count, and returns
        the size, differentiable. Sizes of about 1 suit the multipliers. ``starting_open`` says
        which vectors start at the largest ``log_alpha``, none by default.
        """
        self._module, self._counts, self._size_of = module, list(counts), expected_size
        like = next(module.parameters())
        precision = torch.promote_types(like.dtype, torch.float32)
        zero = torch.zeros((), dtype=precision, device=like.device)
        start = math.log(1 - self.drop_rate) - math.log(self.drop_rate)
        for kind, value in {
            "log_alpha": zero.new_full((sum(counts),), start),
            "multipliers": zero.new_zeros(2),
        }.items():
            module.register_buffer(f"gates_{kind}", value)
            module.register_buffer(f"gates_{kind}_mean", torch.zeros_like(value))
            module.register_buffer(f"gates_{kind}_variance", torch.zeros_like(value))
            module.register_buffer(f"gates_{kind}_step", torch.zeros((), device=like.device))
        module.register_buffer("gates_target", zero.clone())
        module.register_buffer("gates_learning", zero.bool())
        for vector, is_open in zip(self.log_alpha(), starting_open, strict=False):
            if is_open:
                vector.fill_(math.log(_LARGEST_ALPHA))
        self._first_size = float(self.expected_size())

    def remove(self) -> None:
        """Delete all buffers."""
        for name, _ in list(self._module.named_buffers(recurse=False)):
            if name.startswith("gates_"):
                delattr(self._module, name)

    @property
    def learning(self) -> bool:
        """Whether gates are random and learn now."""
        return bool(self._learning.of(self._buffer("learning")))

    def start(self) -> None:
        """Gates are random and learn from now on."""
        self._learning.note(self._buffer("learning").fill_(True), True)

    def stop(self) -> None:
        """Gates stay as they are."""
        self._learning.note(self._buffer("learning").fill_(False), False)

    def set_target(self, size: float) -> None:
        """Set the expected size that is aimed at."""
        self._buffer("target").fill_(size)

    def aim(self, amount: float, size: float) -> None:
        """Aim ``amount`` of the way from where the expected size began to ``size``."""
        self.set_target(self._first_size + amount * (size - self._first_size))

    def log_alpha(self) -> list[Float[Tensor, "_"]]:
        """Return what is learned, a vector for each count."""
        return self._split(self._buffer("log_alpha"))

    @torch.no_grad()
    def sampled(self) -> list[Float[Tensor, "_"]]:
        """Return the gates to train with until the next step."""
        step = int(self._step.of(self._buffer("log_alpha_step")))
        log_alpha = self._buffer("log_alpha")
        return self._split(sampled_gates(log_alpha, uniform_noise(log_alpha, self.seed, step)))

    @torch.no_grad()
    def estimated(self) -> list[Float[Tensor, "_"]]:
        """Return the gates to evaluate with."""
        return self._split(estimated_gates(self._buffer("log_alpha")))

    @torch.no_grad()
    def expected_size(self) -> Float[Tensor, ""]:
        """Return the present expected size."""
        return self._size_of(self._split(open_probability(self._buffer("log_alpha"))))

    @torch.no_grad()
    def update(
        self,
        gates: Sequence[Float[Tensor, "_"]],
        gradients: Sequence[Float[Tensor, "_"]],
        scale: float = 1.0,
    ) -> None:
        """Move gates and multipliers one step of Adam.

        ``gates`` are the sampled ones, ``gradients`` those of the loss with respect to them, and
        ``scale`` multiplies the learning rates.
        """
        target, multipliers = self._buffer("target"), self._buffer("multipliers")
        size, size_gradient = self._size_gradient()
        gradient = torch.cat(list(gradients)) * sample_derivative(torch.cat(list(gates)))
        gradient += size_gradient * lagrangian_size_derivative(size, target, multipliers)
        ascent = -lagrangian_multipliers_gradient(size, target)
        steps = self._buffer("log_alpha_step")
        step = self._step.of(steps)
        self._descend("log_alpha", gradient, self.learning_rate * scale)
        self._step.note(steps, step + 1)
        self._descend("multipliers", ascent, self.multiplier_learning_rate * scale)
        self._buffer("log_alpha").clamp_(math.log(_SMALLEST_ALPHA), math.log(_LARGEST_ALPHA))

    def _size_gradient(self) -> tuple[Float[Tensor, ""], Float[Tensor, "gates"]]:
        """Return the expected size and its gradient with respect to ``log_alpha``."""
        probability = open_probability(self._buffer("log_alpha")).requires_grad_()
        with torch.enable_grad():
            size = self._size_of(self._split(probability))
            (slope,) = torch.autograd.grad(size, probability)
        probability = probability.detach()
        return size.detach(), slope * probability * (1 - probability)

    def _descend(self, kind: str, gradient: Float[Tensor, "_"], learning_rate: float) -> None:
        adam(
            [self._buffer(kind)],
            [gradient],
            [self._buffer(f"{kind}_mean")],
            [self._buffer(f"{kind}_variance")],
            [],
            [self._buffer(f"{kind}_step")],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=_EPSILON,
            maximize=False,
        )

    def _split(self, flat: Tensor) -> list[Tensor]:
        return list(torch.split(flat, self._counts))

    def _buffer(self, kind: str) -> Tensor:
        tensor: Tensor = getattr(self._module, f"gates_{kind}")
        return tensor


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
