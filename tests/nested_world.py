"""Random orders in which the units of tiny encoders go, and copies that are cut for good."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from tiny_encoders import CONFIGS, RESIZABLE, SEVERAL_LAYERS

from multiprune.models.shrink import shrink_layer
from multiprune.models.structure import layers_of
from multiprune.pruning.importance import Scores
from multiprune.pruning.removal import BLOCKS, HEAD_DIMENSIONS, HEADS, LAYERS, NEURONS, Kept
from multiprune.pruning.removal_order import removal_order
from multiprune.pruning.unit_costs import costs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from multiprune.models.nested import RemovalOrder


def allowed() -> list[tuple[str, tuple[str, ...]]]:
    """Return architectures with what may go of them: each kind alone, and all together."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for name in CONFIGS:
        kinds = [HEADS, NEURONS]
        kinds += [HEAD_DIMENSIONS] if name in RESIZABLE else []
        kinds += [BLOCKS]
        kinds += [LAYERS] if name in SEVERAL_LAYERS else []
        found += [*((name, (kind,)) for kind in kinds), (name, (HEADS, NEURONS))]
        found.append((name, tuple(kinds)))
    return list(dict.fromkeys(found))


def order_of(
    encoder: PreTrainedModel,
    granularity: Sequence[str],
    *,
    seed: int = 0,
    of: str = "encoder_linear",
    size: int = 0,
) -> RemovalOrder:
    """Return a random order in which all units go that may; sizes are of the layers alone."""
    layers = layers_of(encoder)
    generator = torch.Generator().manual_seed(seed)
    scores, kept = [], []
    for layer in layers:
        dimensions = (layer.heads, layer.head_size)
        shapes = ((layer.heads,), dimensions, dimensions, (layer.neurons,), (2,), ())
        drawn = [torch.rand(shape, generator=generator) for shape in shapes]
        # No block and no layer goes before many of its units have gone.
        drawn[-2:] = [0.5 + one / 2 for one in drawn[-2:]]
        scores.append(Scores(*drawn))
        kept.append(Kept(*(torch.ones(shape, dtype=torch.bool) for shape in shapes[:-2])))
    costs = [costs_of(layer, of) for layer in layers]
    return removal_order(scores, kept, costs, size=size, granularity=granularity)


def some(order: RemovalOrder, count: int = 4) -> list[int]:
    """Return some numbers of removals: none, all, and evenly between."""
    return sorted({round(one) for one in torch.linspace(0, order.smallest, count).tolist()})


def cut(encoder: PreTrainedModel, order: RemovalOrder, removals: int) -> PreTrainedModel:
    """Return a copy of what is left after so many removals."""
    copied = copy.deepcopy(encoder)
    for layer, units in zip(layers_of(copied), order.units(removals), strict=True):
        shrink_layer(layer, units)
    return copied
