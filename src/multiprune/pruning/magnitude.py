"""Magnitude pruning: remove the weights with the smallest absolute value.

Zhu & Gupta (2017), "To prune, or not to prune", when driven by a cubic schedule.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from multiprune.pruning.element_wise import ElementWisePruner


class Magnitude(ElementWisePruner):
    """Scores a weight by its absolute value; a pruned weight never comes back."""

    reads_gradients = False

    @override
    def scores(self) -> list[Float[Tensor, "..."]]:
        return [target.weight.abs() for target in self.targets]
