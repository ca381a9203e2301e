"""Parameters of the units of a layer, as a budget counts them and hidden dimensions are left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.budget.ledger import parts_of
from multiprune.models.architectures import COLUMNS, NEURONS, QUERY_KEY, ROWS, VALUE
from multiprune.pruning.removal import UnitCosts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.models.structure import Layer
    from multiprune.pruning.removal import Kept


class LayerCosts:
    """What the units of all layers cost in the parameters that ``of`` counts.

    That is known before layers are cut. A head of size ``d`` has ``4 d`` weights for each hidden
    dimension that is left, a neuron 2, so that all costs are linear in their number.

    Args:
        hidden: the number of hidden dimensions at first, if some may go.
    """

    def __init__(self, layers: Sequence[Layer], of: str, hidden: int | None) -> None:
        self.whole = [costs_of(layer, of) for layer in layers]
        sizes = (0, 1) if hidden is not None else ()
        self._known = [[costs_of(layer, of, size) for layer in layers] for size in sizes]

        #: The size of all units at first.
        self.dense = sum(
            cost.of(one.heads, one.head_size, one.neurons)
            for one, cost in zip(layers, self.whole, strict=True)
        )

    def size(self, kept: Sequence[Kept], hidden: int | None) -> int:
        """Return the size of the units that are kept, with so many hidden dimensions left."""
        return sum(one.size(cost) for one, cost in zip(kept, self.at(hidden), strict=True))

    def at(self, hidden: int | None) -> list[UnitCosts]:
        """Return the costs by layer, with so many hidden dimensions left; None is all of them."""
        if hidden is None:
            return self.whole
        return [
            UnitCosts(
                *(
                    at_none + hidden * (at_one - at_none)
                    for at_none, at_one in zip(vars(none).values(), vars(one).values(), strict=True)
                )
            )
            for none, one in zip(*self._known, strict=True)
        ]


def costs_of(layer: Layer, of: str, hidden: int | None = None) -> UnitCosts:
    """Return what the units of a layer cost in the parameters that ``of`` counts.

    With ``hidden``, as if it read and wrote so many hidden dimensions.
    """
    counts_biases = "encoder_other" in parts_of(of)
    costs = {QUERY_KEY: 0, VALUE: 0, NEURONS: 0}
    outputs = {VALUE: 0, NEURONS: 0}
    for linear, slices in layer.linear_layers():
        has_bias = counts_biases and linear.bias is not None
        others = linear.weight.shape[1 - slices.dim] if hidden is None else hidden
        for units in slices.units:
            costs[units] += others + (has_bias and slices.dim == ROWS)
        if has_bias and slices.dim == COLUMNS:
            outputs[slices.units[0]] += others
    in_layer, in_attention = (
        _others(layer) if counts_biases and layer.architecture.droppable else (0, 0)
    )
    return UnitCosts(
        costs[QUERY_KEY] + costs[VALUE],
        costs[NEURONS],
        rest=in_layer - in_attention,
        attention=outputs[VALUE] + in_attention,
        feed_forward=outputs[NEURONS],
    )


def _others(layer: Layer) -> tuple[int, int]:
    """Count the norms that a layer takes along when it is dropped, and those in its attention.

    ModernBERT's layers do, and attentions that norm what they read.
    """
    module = layer.encoder.get_submodule(layer.path)
    norms = [module.get_submodule(path) for path in layer.architecture.norms]
    staying = [*norms, *(linear for linear, _ in layer.linear_layers())]
    counted = {id(one) for part in staying for one in part.parameters()}
    attention = layer.encoder.get_submodule(layer.attention_path)
    found = (
        sum(one.numel() for one in part.parameters() if id(one) not in counted)
        for part in (module, attention)
    )
    return next(found), next(found)
