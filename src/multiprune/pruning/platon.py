"""PLATON: important weights survive, and so do weights whose importance is uncertain.

Zhang et al. (2022), "PLATON: Pruning Large Transformer Models with Upper Confidence Bound of Weight
Importance", equations 4 to 7; window and order of operations as in the authors' code
(github.com/QingruZhang/PLATON, c1776cf, Pruner.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.pruning.by_task import checked
from multiprune.pruning.element_wise import ElementWisePruner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.budget import Budget
    from multiprune.pruning.by_task import ByTask
    from multiprune.pruning.groups import Groups
    from multiprune.pruning.target import Target


def smooth(
    previous: Float[Tensor, "*weight"], value: Float[Tensor, "*weight"], beta: float
) -> Float[Tensor, "*weight"]:
    """Return the exponential moving average ``beta * previous + (1 - beta) * value``."""
    return beta * previous + (1 - beta) * value


class Platon(ElementWisePruner):
    """Scores a weight by smoothed sensitivity times smoothed uncertainty.

    ``I = |w * dL/dw|`` is averaged over the steps between two rankings; then
    ``I_bar = beta1 * I_bar + (1 - beta1) * I``,
    ``U_bar = beta2 * U_bar + (1 - beta2) * |I - I_bar|``, and the score is ``I_bar * U_bar``.

    Weight and gradient are read after the optimizer has moved the weight and before it is set back
    to zero, so that a pruned weight has a sensitivity too and may return. (The authors' code lets
    pruned weights drift between two rankings; here they are zero after every step.)
    """

    state = ("mask", "sensitivity", "uncertainty", "window", "window_steps")
    apart = state[1:]

    def __init__(
        self,
        *,
        budget: Budget,
        beta1: float,
        beta2: float,
        per_layer: bool = False,
        parts: Sequence[str] = ("encoder_linear",),
        groups: Groups | None = None,
        by_task: ByTask | None = None,
    ) -> None:
        super().__init__(budget=budget, per_layer=per_layer, parts=parts, groups=groups)
        self.by_task = checked(by_task)
        check_number("beta1", beta1, at_least=0, below=1)
        check_number("beta2", beta2, at_least=0, below=1)
        self.beta1, self.beta2 = beta1, beta2

    @override
    def add_state(self, target: Target) -> None:
        for kind in ("sensitivity", "uncertainty", "window"):
            target.add(kind, torch.zeros_like(target.weight))
        target.add("window_steps", torch.zeros((), device=target.weight.device))

    @override
    def scores(self) -> list[Float[Tensor, "..."]]:
        return [
            target.buffer("sensitivity") * target.buffer("uncertainty") for target in self.targets
        ]

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        pass  # the gradients of pruned weights tell which of them should return

    @override
    @torch.no_grad()
    def after_step(self) -> None:
        for target in self.targets:
            if target.gradient is not None:
                target.buffer("window").add_((target.weight * target.gradient).abs_())
            target.buffer("window_steps").add_(1)
        self.apply_masks()

    @override
    def prune(self, amount: float) -> None:
        for _ in self.each_task():
            self._close_window()
        super().prune(amount)

    @torch.no_grad()
    def _close_window(self) -> None:
        for target in self.targets:
            steps = target.buffer("window_steps")
            if not steps:
                continue
            importance = target.buffer("window").div_(steps)
            sensitivity, uncertainty = target.buffer("sensitivity"), target.buffer("uncertainty")
            sensitivity.copy_(smooth(sensitivity, importance, self.beta1))
            deviation = (importance - sensitivity).abs_()
            uncertainty.copy_(smooth(uncertainty, deviation, self.beta2))
            importance.zero_()
            steps.zero_()
