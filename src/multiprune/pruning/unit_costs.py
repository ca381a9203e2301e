"""Parameters of the units of a layer, as a budget counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.budget.ledger import parts_of
from multiprune.models.architectures import COLUMNS, NEURONS, QUERY_KEY, ROWS, VALUE
from multiprune.pruning.removal import UnitCosts

if TYPE_CHECKING:
    from multiprune.models.structure import Layer


def costs_of(layer: Layer, of: str) -> UnitCosts:
    """Return what the units of a layer cost in the parameters that ``of`` counts."""
    counts_biases = "encoder_other" in parts_of(of)
    costs = {QUERY_KEY: 0, VALUE: 0, NEURONS: 0}
    outputs = {VALUE: 0, NEURONS: 0}
    for linear, slices in layer.linear_layers():
        has_bias = counts_biases and linear.bias is not None
        for units in slices.units:
            costs[units] += linear.weight.shape[1 - slices.dim] + (has_bias and slices.dim == ROWS)
        if has_bias and slices.dim == COLUMNS:
            outputs[slices.units[0]] += linear.out_features
    others, in_attention = (
        _others(layer) if counts_biases and layer.architecture.droppable else (0, 0)
    )
    return UnitCosts(
        costs[QUERY_KEY] + costs[VALUE],
        costs[NEURONS],
        rest=others - in_attention,
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
