"""Run nested parts of an encoder's layers temporarily, on shared weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from multiprune.models.architectures import NEURONS, QUERY_KEY, ROWS, VALUE
from multiprune.models.nested import LayerOrder
from multiprune.models.shrink import attention_shape, heads_left
from multiprune.models.structure import along

if TYPE_CHECKING:
    from torch import nn

    from multiprune.models.structure import Layer


class Resizable:
    """Lends the layers of an encoder parts of their parameters, and puts back what they had.

    A part is a view where the units that are kept come first, otherwise a copy, through which
    gradients flow to the whole. What a part computes is what the layers would compute if they were
    cut for good.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)
        self._undo: list[Callable[[], object]] = []

    @property
    def is_resized(self) -> bool:
        """Whether the layers have parts of their parameters now."""
        return bool(self._undo)

    def resize(self, units: Sequence[Mapping[str, Bool[Tensor, "_"]]]) -> None:
        """Give each layer the parts that masks keep, one a kind of unit.

        Without heads, skip its attention, and without neurons either, all of it.
        """
        if self.is_resized:
            raise RuntimeError("Layers cannot be resized while a nested part is active.")
        for layer, kept in zip(self.layers, units, strict=True):
            if not kept[VALUE].any():
                self._skip(layer, attention_only=bool(kept[NEURONS].any()))
            whole = all(mask.all() for mask in kept.values())
            if not whole and (kept[VALUE].any() or kept[NEURONS].any()):
                self._narrow(layer, kept)

    def restore(self) -> None:
        """Make the layers whole again."""
        while self._undo:
            self._undo.pop()()

    def _skip(self, layer: Layer, *, attention_only: bool) -> None:
        path, left = layer.dropped(attention_only=attention_only)
        place, _, name = path.rpartition(".")
        parent, whole = layer.encoder.get_submodule(place), layer.encoder.get_submodule(path)
        parent.add_module(name, left.train(whole.training))
        self._undo.append(partial(parent.add_module, name, whole))

    def _narrow(self, layer: Layer, kept: Mapping[str, Bool[Tensor, "_"]]) -> None:
        for linear, slices in layer.linear_layers():
            mask = along(slices, kept)
            index = mask.nonzero()[:, 0]
            self._lend(linear, "weight", part(linear.weight, slices.dim, index))
            if slices.dim == ROWS and linear.bias is not None:
                self._lend(linear, "bias", part(linear.bias, 0, index))
            elif not len(index):
                self._lend(linear, "bias", None)
        if not kept[VALUE].any():
            return
        attention = layer.attention
        for name, value in attention_shape(layer, kept).items():
            self._undo.append(partial(setattr, attention, name, getattr(attention, name)))
            setattr(attention, name, value)
        kind, heads = layer.architecture.position_bias, heads_left(layer, kept)
        if kind is not None and len(heads) < layer.heads:
            self._undo += [handle.remove for handle in kind.attach(attention, heads)]

    def _lend(self, linear: nn.Linear, name: str, lent: Tensor | None) -> None:
        # As `torch.func.functional_call` does: a part that gradients flow through is no parameter.
        whole = linear._parameters[name]
        linear._parameters[name] = lent  # type: ignore[assignment]
        self._undo.append(partial(_put_back, linear, name, whole))


def _put_back(linear: nn.Linear, name: str, whole: nn.Parameter | None) -> None:
    linear._parameters[name] = whole


def part(
    whole: Float[Tensor, "..."], dim: int, index: Int64[Tensor, "kept"]
) -> Float[Tensor, "..."]:
    """Return entries of a tensor along ``dim``, ``index`` rising: a view if they come first.

    ``index`` is best on the CPU, where looking at it waits for nothing.
    """
    if len(index) == whole.shape[dim]:
        return whole
    if not len(index) or int(index[-1]) == len(index) - 1:
        return whole.narrow(dim, 0, len(index))
    return whole.index_select(dim, index.to(whole.device, non_blocking=True))


@torch.no_grad()
def sort_units(layer: Layer, order: LayerOrder) -> LayerOrder:
    """Put what goes last first, so that parts are views; return the order of the units as they lie.

    What the layer computes stays the same. Units whose place another module knows stay in place.
    """
    if layer.architecture.position_bias is not None:
        return order
    heads, neurons = _last_first(order.heads), _last_first(order.neurons)
    places = {NEURONS: neurons}
    dimensions = {}
    for units, positions in ((QUERY_KEY, order.query_key), (VALUE, order.value)):
        dimensions[units] = _last_first(positions)[heads]
        places[units] = (heads[:, None] * layer.head_size + dimensions[units]).reshape(-1)
    for linear, slices in layer.linear_layers():
        sizes = [layer.size_of(units) for units in slices.units]
        starts = [sum(sizes[:number]) for number in range(len(sizes))]
        index = torch.cat(
            [start + places[units] for start, units in zip(starts, slices.units, strict=True)]
        ).to(linear.weight.device)
        linear.weight.copy_(linear.weight.index_select(slices.dim, index))
        if slices.dim == ROWS and linear.bias is not None:
            linear.bias.copy_(linear.bias.index_select(0, index))
    return LayerOrder(
        order.heads[heads],
        order.query_key[heads].gather(1, dimensions[QUERY_KEY]),
        order.value[heads].gather(1, dimensions[VALUE]),
        order.neurons[neurons],
    )


def _last_first(positions: Int[Tensor, "*units"]) -> Int64[Tensor, "*units"]:
    return positions.argsort(dim=-1, descending=True, stable=True)
