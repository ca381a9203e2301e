"""Wanda: remove small weights with small inputs.

Sun, Liu, Bair & Kolter (2023), "A Simple and Effective Pruning Approach for Large Language Models",
equation 1.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from multiprune.pruning.element_wise import ElementWisePruner


class Wanda(ElementWisePruner):
    """Scores a weight by ``|W[i, j]| * norm(x[j])``, the norm over all tokens that were read.

    The paper prunes once, without training, from 128 calibration texts; here the norms are those of
    the training batches since the start, and pruning follows the schedule. The paper compares only
    the weights of one output, which is ``groups=Rows()``; by default all layers are ranked
    together, where a norm says how often a layer is read, too. Padding counts, and a layer that has
    read nothing goes by magnitude. A pruned weight never comes back.
    """

    reads_gradients = False
    reads_activations = True

    @override
    def scores(self) -> list[Float[Tensor, "..."]]:
        return [target.weight.abs() * self.input_norms(target) for target in self.targets]
