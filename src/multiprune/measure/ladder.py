"""A sweep of sizes: an encoder with fractions of its heads, neurons, layers or tokens.

Multilingual encoders show best that small is not fast (Li et al. 2022, arXiv 2204.02601): most of
their parameters are embeddings, which a forward pass only looks up.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from multiprune.budget.ledger import owned_parameters
from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE
from multiprune.models.cut import cut_parameter
from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import layers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from transformers import PreTrainedModel

    from multiprune.models.structure import Layer


@dataclass(frozen=True)
class Rung:
    """An encoder that kept ``share`` of its units of one granularity, and all others."""

    granularity: str
    share: float
    encoder: PreTrainedModel

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return f"{self.granularity} {self.share:g}"


def ladder(dense: PreTrainedModel, shares: Sequence[float]) -> Iterator[Rung]:
    """Yield ``dense`` cut to each share of each granularity; it stays as it is.

    The first units are kept, since shapes alone say what an encoder costs, and a share rounds down,
    but to no less than one. Embeddings that are not cut are those of ``dense``, in the same memory.

    Raises:
        ValueError: if a share is not between 0 and 1.
    """
    for share in shares:
        if not 0 < share < 1:
            raise ValueError(f"`shares` must be between 0 and 1, but one is {share}.")
    for granularity, cut in GRANULARITIES.items():
        for share in shares:
            encoder = _copy(dense)
            cut(encoder, share)
            yield Rung(granularity, share, encoder)


def keep_heads(encoder: PreTrainedModel, share: float) -> None:
    """Keep a share of the heads of every layer."""
    for layer in layers_of(encoder):
        _shrink(layer, heads=_part(layer.heads, share), neurons=layer.neurons)


def keep_neurons(encoder: PreTrainedModel, share: float) -> None:
    """Keep a share of the neurons of every layer."""
    for layer in layers_of(encoder):
        _shrink(layer, heads=layer.heads, neurons=_part(layer.neurons, share))


def keep_heads_and_neurons(encoder: PreTrainedModel, share: float) -> None:
    """Keep the same share of the heads and of the neurons of every layer."""
    for layer in layers_of(encoder):
        _shrink(layer, heads=_part(layer.heads, share), neurons=_part(layer.neurons, share))


def keep_layers(encoder: PreTrainedModel, share: float) -> None:
    """Keep a share of the layers; of the others, which are the last, their norms are left."""
    layers = layers_of(encoder)
    for layer in layers[_part(len(layers), share) :]:
        _shrink(layer, heads=0, neurons=0)


def keep_tokens(encoder: PreTrainedModel, share: float) -> None:
    """Keep a share of the rows of the matrix of word embeddings."""
    embedding = encoder.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    count = _part(embedding.num_embeddings, share)
    cut_parameter(embedding, "weight", 0, torch.arange(count))
    embedding.num_embeddings = encoder.config.vocab_size = count


GRANULARITIES: Mapping[str, Callable[[PreTrainedModel, float], None]] = {
    "heads": keep_heads,
    "neurons": keep_neurons,
    "heads and neurons": keep_heads_and_neurons,
    "layers": keep_layers,
    "vocabulary": keep_tokens,
}


def _copy(dense: PreTrainedModel) -> PreTrainedModel:
    """Return a copy that shares the embeddings."""
    shared: dict[int, Tensor] = {
        id(owned.parameter): owned.parameter
        for owned in owned_parameters(dense)
        if owned.part == "embeddings"
    }
    return copy.deepcopy(dense, shared)


def _part(count: int, share: float) -> int:
    return max(1, int(share * count))


def _shrink(layer: Layer, *, heads: int, neurons: int) -> None:
    values = torch.arange(layer.heads * layer.head_size) < heads * layer.head_size
    kept = torch.arange(layer.neurons) < neurons
    shrink_layer(layer, {QUERY_KEY: values, VALUE: values, NEURONS: kept})
