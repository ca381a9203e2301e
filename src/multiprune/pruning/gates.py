"""Hard concrete gates that are learned under a constraint on their expected size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.adam import adam

from multiprune.arguments import check_is, check_number
from multiprune.pruning.evaluation_gates import EvaluationGates, LouizosGates
from multiprune.pruning.hard_concrete import (
    lagrangian_multipliers_gradient,
    lagrangian_size_derivative,
    open_probability,
    sample_derivative,
    sampled_gates,
    uniform_noise,
)
from multiprune.pruning.known_value import KnownValue

if TYPE_CHECKING:
    from torch import nn

# The authors' code clamps to 1e-2, where a gate that is all but closed still counts 5 %: more than
# a small budget has to give.
_SMALLEST_ALPHA, _LARGEST_ALPHA = 1e-3, 1e2
# A gate of a large model is a millionth of its size, and so is its gradient.
_EPSILON = 1e-15


class Gates:
    """Vectors of gates that learn by Adam under a constraint on their expected size.

    All state is in buffers ``gates_*`` of one module, for all vectors in a row; this object holds
    settings. Gates are 1 until ``start`` and after ``stop``. The noise of a step depends on
    ``seed`` and the number of the step alone: ranks agree, and a resumed run repeats it.

    ``drop_rate`` is where gates start: ``log_alpha = log((1 - drop_rate) / drop_rate)``.
    """

    def __init__(
        self,
        *,
        drop_rate: float,
        learning_rate: float,
        multiplier_learning_rate: float,
        seed: int,
        evaluation: EvaluationGates | None = None,
    ) -> None:
        check_number("drop_rate", drop_rate, above=0, below=1)
        check_number("gate_learning_rate", learning_rate, above=0)
        check_number("multiplier_learning_rate", multiplier_learning_rate, above=0)
        check_number("seed", seed, at_least=0, whole=True)
        self.evaluation = LouizosGates() if evaluation is None else evaluation
        check_is(EvaluationGates, "FlopGates()", evaluation_gates=self.evaluation)
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

    def aim(self, amount: float, size: float, first: float | None = None) -> None:
        """Aim ``amount`` of the way to ``size`` from ``first``, or from the size at the start."""
        first = self._first_size if first is None else first
        self.set_target(first + amount * (size - first))

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
        return self._split(self.evaluation.estimated(self._buffer("log_alpha"), self._counts))

    @torch.no_grad()
    def folded(self) -> list[Float[Tensor, "_"]]:
        """Return what gates that are kept are multiplied into weights with."""
        return self._split(self.evaluation.folded(self._buffer("log_alpha")))

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
