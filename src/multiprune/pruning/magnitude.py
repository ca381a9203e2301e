"""Magnitude pruning: the weights nearest to zero go first.

Zhu & Gupta (2017), "To prune, or not to prune", when driven by a cubic schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from multiprune.pruning.element_wise import ElementWisePruner

if TYPE_CHECKING:
    from torch import Tensor


class Magnitude(ElementWisePruner):
    """Scores a weight by its absolute value; a pruned weight never comes back."""

    reads_gradients = False

    @override
    def scores(self) -> list[Tensor]:
        return [target.weight.abs() for target in self.targets]
