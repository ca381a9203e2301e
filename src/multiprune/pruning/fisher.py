"""Optimal brain damage with the empirical Fisher: weights whose loss would change least go first.

LeCun, Denker & Solla (1990), "Optimal Brain Damage", equation 5, with the diagonal of the empirical
Fisher in place of second derivatives; that is the diagonal case of Kurtic et al. (2022), "The
Optimal BERT Surgeon", equations 5 and 6.
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


def saliency(
    weight: Float[Tensor, "*weight"], fisher: Float[Tensor, "*weight"]
) -> Float[Tensor, "*weight"]:
    """Return ``w**2 F / 2``: how much the loss would rise without a weight, to second order."""
    return weight.square() * fisher / 2


class Fisher(ElementWisePruner):
    """Scores a weight by its square times the running mean of its squared gradients.

    The gradients are those of training batches, as the optimizer is given them: averaged over a
    batch, and clipped. ``decay`` is what the mean keeps at each step; it begins at zero for all
    weights alike, which changes no ranking. A pruned weight never comes back.
    """

    state = ("mask", "fisher")
    apart = ("fisher",)

    def __init__(
        self,
        *,
        budget: Budget,
        decay: float = 0.999,
        per_layer: bool = False,
        parts: Sequence[str] = ("encoder_linear",),
        groups: Groups | None = None,
        by_task: ByTask | None = None,
    ) -> None:
        super().__init__(budget=budget, per_layer=per_layer, parts=parts, groups=groups)
        self.by_task = checked(by_task)
        check_number("decay", decay, at_least=0, below=1)
        self.decay = decay

    @override
    def add_state(self, target: Target) -> None:
        target.add("fisher", torch.zeros_like(target.weight))

    @override
    def scores(self) -> list[Float[Tensor, "..."]]:
        return [saliency(target.weight, target.buffer("fisher")) for target in self.targets]

    @override
    @torch.no_grad()
    def after_step(self) -> None:
        if self.progress.goes_on:
            for target in self.targets:
                fisher, gradient = target.buffer("fisher"), target.gradient
                fisher.mul_(self.decay)
                if gradient is not None:
                    fisher.addcmul_(gradient, gradient, value=1 - self.decay)
        super().after_step()
