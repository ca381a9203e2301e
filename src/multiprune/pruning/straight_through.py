"""A linear layer with learned scores and a straight-through gradient.

Sanh et al. (2020), equations 3 to 5, compute ``W' = W * M(S)`` in the forward pass and hand the
gradient of ``M`` to the scores ``S``: ``dL/dS = dL/dW' * W``. Here the layer holds ``W'`` itself,
and a buffer beside it what the mask hides, ``H = W * (1 - M)``. Backward leaves ``G = dL/dW'`` on
the layer. Just before the optimizer moves, ``S`` gets the gradient ``G * (W' + H)``, the weights
get ``G * M``, and the layer takes ``W = W' + H``; just after, ``H`` and ``W'`` are split again.
That is the same arithmetic, with no mask in the forward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.optim.adam import adam

from multiprune.arguments import check_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from multiprune.pruning.target import Target

STATE = ("mask", "hidden", "scores", "scores_mean", "scores_variance", "scores_step")


class StraightThroughScores:
    """The scores of some targets, their gradient, and their own Adam.

    The scores are buffers, not parameters, and their Adam moments too: whatever optimizer, clipping
    and learning-rate schedule the weights have, the scores are neither clipped nor decayed with
    them, and everything is in the model's ``state_dict``.
    """

    def __init__(self, learning_rate: float) -> None:
        check_number("score_learning_rate", learning_rate, above=0)
        self.learning_rate = learning_rate
        self._gradients: dict[str, Tensor] = {}
        self._scale = 1.0

    def add_to(self, target: Target) -> None:
        """Register hidden weights, scores and moments, all zero, beside a target."""
        for kind in ("hidden", "scores", "scores_mean", "scores_variance"):
            target.add(kind, torch.zeros_like(target.weight))
        target.add("scores_step", torch.zeros((), device=target.weight.device))

    @torch.no_grad()
    def read_gradients(self, targets: Sequence[Target], scale: float) -> None:
        """Take the scores' gradients, mask those of the weights, and show the hidden weights."""
        self._scale = scale
        for target in targets:
            weight, gradient = target.weight, target.gradient
            weight.add_(target.buffer("hidden"))
            scores_gradient = self.gradient_of(target)
            if gradient is None:
                scores_gradient.zero_()
                continue
            torch.mul(gradient, weight, out=scores_gradient)
            gradient.mul_(target.mask)

    def gradient_of(self, target: Target) -> Tensor:
        """Return the tensor that holds the gradient of a target's scores during a step."""
        gradient, weight = self._gradients.get(target.path), target.weight
        if gradient is None or (gradient.device, gradient.shape) != (weight.device, weight.shape):
            gradient = self._gradients[target.path] = torch.empty_like(weight)
        return gradient

    @torch.no_grad()
    def update(self, targets: Sequence[Target]) -> None:
        """Move the scores one step of Adam, and hide the pruned weights again."""
        adam(
            [target.buffer("scores") for target in targets],
            [self.gradient_of(target) for target in targets],
            [target.buffer("scores_mean") for target in targets],
            [target.buffer("scores_variance") for target in targets],
            [],
            [target.buffer("scores_step") for target in targets],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate * self._scale,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
        hide(targets)


@torch.no_grad()
def show(targets: Sequence[Target]) -> None:
    """Put the hidden weights back into their layers."""
    for target in targets:
        target.weight.add_(target.buffer("hidden"))


@torch.no_grad()
def hide(targets: Sequence[Target]) -> None:
    """Move the weights that the mask prunes from the layer to the buffer beside it."""
    for target in targets:
        weight, hidden = target.weight, target.buffer("hidden")
        torch.mul(weight, ~target.mask, out=hidden)
        weight.sub_(hidden)
