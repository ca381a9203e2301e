"""Where the units of a layer are recorded and scaled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.models.architectures import COLUMNS, QUERY_KEY, ROWS
from multiprune.models.structure import Layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from multiprune.models.architectures import Slices


@dataclass(frozen=True)
class Site:
    """The outputs or the inputs of a linear layer.

    Attributes:
        parts: which of them are the units of a kind.
        head_size: the dimensions of each head among them.
        reads_inputs: whether it is the inputs.
        decoding: whether they are of the tokens that a decoder reads, rather than of the text.
    """

    linear: nn.Linear
    parts: tuple[tuple[str, slice], ...]
    head_size: int
    reads_inputs: bool = False
    decoding: bool = False


Sites = Callable[[Layer], list[Site]]


def linear_outputs(layer: Layer) -> list[Site]:
    """Return the outputs of query, key, value and the first feed-forward layer, as they come out.

    Where Yang et al. (2023) attribute. A dimension of query and key is attributed to twice, and so
    is a neuron with a gate of its own; the sum counts.
    """
    return [
        Site(
            linear,
            tuple(_parts(layer, slices)),
            layer.head_size,
            decoding=layer.decodes(linear),
        )
        for linear, slices in layer.linear_layers()
        if slices.dim == ROWS
    ]


def projection_inputs(layer: Layer) -> list[Site]:
    """Return what the output projections read: head outputs, and neurons behind their activation.

    Where Michel et al. (2019) and Kwon et al. (2022) put gates. No projection reads dimensions of
    query and key: their gate is on the query.
    """
    sites = [
        Site(
            linear,
            tuple(_parts(layer, slices)),
            layer.head_size,
            reads_inputs=True,
            decoding=layer.decodes(linear),
        )
        for linear, slices in layer.linear_layers()
        if slices.dim == COLUMNS
    ]
    query, slices = next(one for one in layer.linear_layers() if QUERY_KEY in one[1].units)
    first = next(part for part in _parts(layer, slices) if part[0] == QUERY_KEY)
    return [Site(query, (first,), layer.head_size, decoding=layer.decodes(query)), *sites]


def _parts(layer: Layer, slices: Slices) -> Iterator[tuple[str, slice]]:
    start = 0
    for units in slices.units:
        stop = start + layer.size_of(units)
        yield units, slice(start, stop)
        start = stop
