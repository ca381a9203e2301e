"""Movement pruning: keep the weights that training moves away from zero.

Sanh, Wolf & Rush (2020), "Movement Pruning: Adaptive Sparsity by Fine-Tuning", hard top-k.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.pruning.by_task import checked
from multiprune.pruning.element_wise import ElementWisePruner
from multiprune.pruning.straight_through import STATE, StraightThroughScores, hide, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from multiprune.budget import Budget
    from multiprune.pruning.by_task import ByTask
    from multiprune.pruning.groups import Groups
    from multiprune.pruning.target import Target


class Movement(ElementWisePruner):
    """Keeps the top scores ``S``, which learn by ``dL/dS = dL/dW' * W``; pruned weights may return.

    The paper's ``v`` per matrix is ``per_layer=True``; its global variant ranks all scores at once.

    Scores start at ``magnitude_prior * |W| / mean |W|``. The paper's start, 0, needs thousands of
    steps before the first ranking is more than noise; with a prior, rankings go by magnitude until
    the scores have learned better.
    """

    state: tuple[str, ...] = STATE
    apart = tuple(kind for kind in STATE if kind.startswith("scores"))

    def __init__(
        self,
        *,
        budget: Budget,
        score_learning_rate: float,
        magnitude_prior: float = 1.0,
        per_layer: bool = False,
        parts: Sequence[str] = ("encoder_linear",),
        groups: Groups | None = None,
        by_task: ByTask | None = None,
    ) -> None:
        super().__init__(budget=budget, per_layer=per_layer, parts=parts, groups=groups)
        self.by_task = checked(by_task)
        check_number("magnitude_prior", magnitude_prior, at_least=0)
        self.magnitude_prior = magnitude_prior
        self._straight_through = StraightThroughScores(score_learning_rate)

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        super().prepare(model, encoder)
        if not self.magnitude_prior:
            return
        total = sum(target.weight.numel() for target in self.targets)
        mean = sum(float(target.weight.abs().sum()) for target in self.targets) / total
        for _ in self.each_task():
            for target in self.targets:
                target.buffer("scores").copy_(target.weight.abs() * (self.magnitude_prior / mean))

    @override
    def scores(self) -> list[Float[Tensor, "..."]]:
        return [target.buffer("scores") for target in self.targets]

    @override
    def add_state(self, target: Target) -> None:
        self._straight_through.add_to(target)

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        self._straight_through.read_gradients(self.targets, learning_rate_scale)

    @override
    def after_step(self) -> None:
        self._straight_through.update(self.targets)

    @override
    def skip_step(self) -> None:
        hide(self.targets)

    @override
    def prune(self, amount: float) -> None:
        show(self.targets)
        super().prune(amount)

    @override
    def apply_masks(self) -> None:
        hide(self.targets)
