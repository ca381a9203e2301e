"""Soft movement pruning: a score threshold, and a penalty on scores.

Sanh, Wolf & Rush (2020), section 4: ``M = 1[sigmoid(S) > tau]`` with ``tau`` rising to its final
value, and a penalty ``lambda * mean over matrices of mean(sigmoid(S))`` on the loss. The paper's
sparsity follows from ``lambda`` and cannot be stated. Here no ranking keeps more than the schedule
says, the largest scores where the threshold would, and the last is exact, so that the budget holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.pruning.groups import Elements, Groups
from multiprune.pruning.movement import Movement
from multiprune.pruning.select import keep_largest
from multiprune.pruning.straight_through import hide, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.budget import Budget
    from multiprune.pruning.target import Target


def sigmoid_gradient(scores: Float[Tensor, "*weight"]) -> Float[Tensor, "*weight"]:
    """Return the derivative of the logistic function at ``scores``, element by element."""
    probability = torch.sigmoid(scores)
    return probability * (1 - probability)


class SoftMovement(Movement):
    """Keeps what scores above a rising threshold, at most what is due, and in the end the budget.

    ``threshold`` is the final ``tau`` and ``penalty`` the final ``lambda``; both grow with the
    amount of pruning done. ``min_density`` of each matrix stays where the threshold decides; where
    it keeps more than is due at a ranking, the largest scores stay, exactly as many as are due.
    ``groups`` other than single weights are refused.
    """

    state = (*Movement.state, "penalty")

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
        super().__init__(
            budget=budget,
            score_learning_rate=score_learning_rate,
            magnitude_prior=0,
            per_layer=per_layer,
            parts=parts,
            groups=groups,
        )
        check_number("threshold", threshold, above=0, below=1)
        check_number("penalty", penalty, at_least=0)
        check_number("min_density", min_density, at_least=0, at_most=1)
        if not isinstance(self.groups, Elements):
            raise ValueError(
                "Soft movement has a threshold for single weights, so that `groups` must be "
                f"Elements, but are {type(self.groups).__name__}."
            )
        self.threshold, self.penalty, self.min_density = threshold, penalty, min_density

    @override
    def add_state(self, target: Target) -> None:
        super().add_state(target)
        target.add("penalty", torch.zeros((), device=target.weight.device))

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        super().before_step(learning_rate_scale)
        for target in self.targets:
            push = sigmoid_gradient(target.buffer("scores")).mul_(target.buffer("penalty"))
            self._straight_through.gradient_of(target).add_(push)

    @override
    def prune(self, amount: float) -> None:
        for target in self.targets:
            share = target.weight.numel() * len(self.targets)
            target.buffer("penalty").fill_(self.penalty * amount / share)
        if amount >= 1 or not self.excess:
            super().prune(amount)
            return
        show(self.targets)
        scores = self.finite_scores()
        for ranked, share in self._rankings(self._dense - int(self._excess * amount)):
            targets = self.targets[ranked]
            masks = [self._above_threshold(target, amount) for target in targets]
            if sum(int(mask.count_nonzero()) for mask in masks) > share:
                masks = keep_largest(scores[ranked], share)
            for target, mask in zip(targets, masks, strict=True):
                target.mask.copy_(mask)
        hide(self.targets)

    def _above_threshold(self, target: Target, amount: float) -> Tensor:
        scores = target.buffer("scores")
        if amount <= 0:
            return torch.ones_like(target.mask)
        mask = torch.sigmoid(scores) > self.threshold * amount
        fewest = int(self.min_density * scores.numel())
        return mask if int(mask.count_nonzero()) >= fewest else keep_largest([scores], fewest)[0]
