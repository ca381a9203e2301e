"""Movement pruning of weights that never move: what is learned is which of them to keep.

SMP (Jiang et al. 2023, "Pruning Pre-trained Language Models Without Fine-Tuning"), ranked and
budgeted as ``Movement`` is. Many tasks can share one set of weights then, with a mask for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from multiprune.budget.ledger import owned_parameters
from multiprune.pruning.movement import Movement

if TYPE_CHECKING:
    from torch import nn


class FrozenMovement(Movement):
    """Learns the scores of ``Movement``, while every parameter of the encoder stays as it is.

    The model in the end is the encoder that training began with, times the masks; only what is not
    part of the encoder (heads) is trained. Call ``prepare`` before an optimizer is built, which
    then holds no parameters of the encoder but the weights that have scores, and never moves those.
    """

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        if "heads" in self.parts:
            raise ValueError(
                "`parts` must not name heads where weights are frozen, since heads have to learn, "
                f"but are {', '.join(self.parts)}."
            )
        super().prepare(model, encoder)
        scored = {target.path for target in self.targets}
        for owned in owned_parameters(model, encoder):
            if owned.part != "heads" and owned.path not in scored:
                owned.parameter.requires_grad_(False)

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        super().before_step(learning_rate_scale)
        for target in self.targets:
            target.drop_gradient()
