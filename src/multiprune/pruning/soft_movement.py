"""Soft movement pruning: a threshold on scores, a penalty that pushes them down to it.

Sanh, Wolf & Rush (2020), section 4: ``M = 1[sigmoid(S) > tau]`` with ``tau`` rising to its final
value, and a penalty ``lambda * mean over matrices of mean(sigmoid(S))`` on the loss. The paper's
sparsity follows from ``lambda`` and cannot be stated. Here the last ranking is an exact selection
of the largest scores, so that the budget holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from multiprune.arguments import check_numbers
from multiprune.pruning.element_wise import ElementWisePruner, Target
from multiprune.pruning.groups import Elements, Groups
from multiprune.pruning.select import keep_largest
from multiprune.pruning.straight_through import STATE, StraightThroughScores, hide, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from multiprune.budget import Budget


def sigmoid_gradient(scores: Tensor) -> Tensor:
    """Return the derivative of the logistic function at ``scores``, element by element."""
    probability = torch.sigmoid(scores)
    return probability * (1 - probability)


class SoftMovement(ElementWisePruner):
    """Keeps what scores above a rising threshold, and in the end exactly the budget.

    ``threshold`` is the final ``tau`` and ``penalty`` the final ``lambda``; both grow with the
    amount of pruning done. ``min_density`` of each matrix stays while the threshold decides.
    ``groups`` other than single weights are refused.
    """

    state = (*STATE, "penalty")

    def __init__(
        self,
        *,
        budget: Budget,
        score_learning_rate: float,
        threshold: float,
        penalty: float,
        min_density: float = 0.005,
        per_layer: bool = False,
        parts: Sequence[str] = ("encoder_linear",),
        groups: Groups | None = None,
    ) -> None:
        super().__init__(budget=budget, per_layer=per_layer, parts=parts, groups=groups)
        check_numbers(threshold=threshold, penalty=penalty, min_density=min_density)
        if not 0 < threshold < 1 or penalty < 0:
            raise ValueError(
                "`threshold` must be in (0, 1) and `penalty` at least 0, "
                f"but are {threshold} and {penalty}."
            )
        if not isinstance(self.groups, Elements):
            raise ValueError(
                "Soft movement has a threshold for single weights, so that `groups` must be "
                f"Elements, but are {type(self.groups).__name__}."
            )
        self.threshold, self.penalty, self.min_density = threshold, penalty, min_density
        self._straight_through = StraightThroughScores(score_learning_rate)

    @override
    def scores(self) -> list[Tensor]:
        return [target.buffer("scores") for target in self.targets]

    @override
    def add_state(self, target: Target) -> None:
        self._straight_through.add_to(target)
        target.add("penalty", torch.zeros((), device=target.weight.device))

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        self._straight_through.read_gradients(self.targets, learning_rate_scale)
        for target in self.targets:
            push = sigmoid_gradient(target.buffer("scores")).mul_(target.buffer("penalty"))
            self._straight_through.gradient_of(target).add_(push)

    @override
    def after_step(self) -> None:
        self._straight_through.update(self.targets)

    @override
    def skip_step(self) -> None:
        hide(self.targets)

    @override
    def prune(self, amount: float) -> None:
        for target in self.targets:
            share = target.weight.numel() * len(self.targets)
            target.buffer("penalty").fill_(self.penalty * amount / share)
        show(self.targets)
        if amount >= 1 or not self.excess:
            super().prune(amount)
            return
        for target in self.targets:
            target.mask.copy_(self._above_threshold(target, amount))
        hide(self.targets)

    @override
    def apply_masks(self) -> None:
        hide(self.targets)

    def _above_threshold(self, target: Target, amount: float) -> Tensor:
        scores = target.buffer("scores")
        if amount <= 0:
            return torch.ones_like(target.mask)
        mask = torch.sigmoid(scores) > self.threshold * amount
        fewest = int(self.min_density * scores.numel())
        return mask if int(mask.count_nonzero()) >= fewest else keep_largest([scores], fewest)[0]
