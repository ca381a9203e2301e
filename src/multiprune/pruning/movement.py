"""Movement pruning: the weights that training moves away from zero survive.

Sanh, Wolf & Rush (2020), "Movement Pruning: Adaptive Sparsity by Fine-Tuning", hard top-k.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from multiprune.pruning.element_wise import ElementWisePruner, Target
from multiprune.pruning.straight_through import STATE, StraightThroughScores, hide, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from multiprune.budget import Budget


class Movement(ElementWisePruner):
    """Keeps the top scores ``S``, which learn by ``dL/dS = dL/dW' * W``; pruned weights may return.

    The paper's ``v`` per matrix is ``per_layer=True``; its global variant ranks all scores at once.
    """

    state = STATE

    def __init__(
        self,
        *,
        budget: Budget,
        score_learning_rate: float,
        per_layer: bool = False,
        parts: Sequence[str] = ("encoder_linear",),
    ) -> None:
        super().__init__(budget=budget, per_layer=per_layer, parts=parts)
        self._straight_through = StraightThroughScores(score_learning_rate)

    @override
    def scores(self) -> list[Tensor]:
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
