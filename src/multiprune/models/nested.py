"""Nested subnetworks of an encoder, from one order of removal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class LayerOrder:
    """With which removal, from 0, each unit of a layer goes; units that never go have a later one.

    Attributes:
        heads: of each head; a layer that goes takes its heads and neurons along.
        query_key: of its query and key, whether the head goes or not.
        value: of its value, whether the head goes or not.
        neurons: of each neuron.
    """

    heads: Int[Tensor, "heads"]
    query_key: Int[Tensor, "heads head_size"]
    value: Int[Tensor, "heads head_size"]
    neurons: Int[Tensor, "neurons"]

    def units(self, removals: int) -> dict[str, Bool[Tensor, "_"]]:
        """Return one mask a kind of unit, of what is left after so many removals."""
        heads = (self.heads >= removals)[:, None]
        return {
            QUERY_KEY: ((self.query_key >= removals) & heads).reshape(-1),
            VALUE: ((self.value >= removals) & heads).reshape(-1),
            NEURONS: self.neurons >= removals,
        }


@dataclass(frozen=True)
class RemovalOrder:
    """In which order the units of an encoder go, and what size is left each time.

    Attributes:
        layers: of the encoder.
        sizes: parameters of the layers before any removal, after the first, and so on: falling.
    """

    layers: Sequence[LayerOrder]
    sizes: Int[Tensor, "sizes"]

    def removals_for(self, size: int) -> int:
        """Return the least number of removals that leave no more than ``size`` parameters.

        All of them, if that is not enough.
        """
        # Sizes fall, their negatives rise.
        first = int(torch.searchsorted(-self.sizes, -size))
        return min(first, self.smallest)

    @property
    def smallest(self) -> int:
        """The number of all removals."""
        return len(self.sizes) - 1

    def units(self, removals: int) -> list[dict[str, Bool[Tensor, "_"]]]:
        """Return, by layer, one mask a kind of unit, of what is left after so many removals."""
        return [layer.units(removals) for layer in self.layers]
