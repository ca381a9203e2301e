"""Finds in a BERT what a pruner says it prunes, by the names of its masks alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from acceptance_world import HEADS, HIDDEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from multiprune.pruning.pruner import Pruner


@torch.no_grad()
def pruned_values(model: nn.Module, pruner: Pruner) -> dict[str, Tensor]:
    """Return by mask every value that it prunes and that is still there, found by its name alone.

    What was cut must have exactly the shape of what the mask keeps.
    """
    return {
        path: torch.cat([torch.empty(0), *(one.flatten() for one in _under(model, path, mask))])
        for path, mask in pruner.masks().items()
    }


def _under(model: Any, path: str, mask: Tensor) -> Iterator[Tensor]:
    owner, _, kind = path.rpartition(".")
    if kind == "ranks":
        layer = model.get_submodule(owner)
        if len(layer.down.weight) == 0:
            assert mask.all(), "a layer of which ranks are gone is still one matrix"
            return
        yield from _gone(mask, layer.down.weight, layer.up.weight.T)
    elif kind in ("heads", "neurons"):
        yield from _of_units(model.base_model.get_submodule(owner), kind, mask)
    else:
        yield model.get_parameter(path)[~mask]


def _of_units(layer: Any, kind: str, mask: Tensor) -> Iterator[Tensor]:
    """Yield what is pruned of a layer of BERT, unless the layer is gone as a whole."""
    if not mask.any() and not hasattr(layer, "intermediate"):
        return
    if kind == "neurons":
        first, second = layer.intermediate.dense, layer.output.dense
        yield from _gone(mask, first.weight, first.bias, second.weight.T)
    else:
        own = layer.attention.self
        by_dimension = mask.repeat_interleave(HIDDEN // HEADS)
        linear = [own.query, own.key, own.value]
        of_heads = [one for each in linear for one in (each.weight, each.bias)]
        output = layer.attention.output.dense.weight.T
        yield from _gone(by_dimension, *of_heads, output)


def _gone(mask: Tensor, *along_mask: Tensor) -> Iterator[Tensor]:
    for tensor in along_mask:
        if len(tensor) == len(mask):
            yield tensor[~mask]
        else:
            assert len(tensor) == int(mask.sum()), "a layer was cut to another size than is kept"
