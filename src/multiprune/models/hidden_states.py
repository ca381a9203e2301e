"""Hidden states of each layer, also of shared or dropped layers."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from multiprune.models.modeling_multiprune import DroppedLayer
from multiprune.models.structure import architecture_of, layer_paths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@dataclass(frozen=True)
class LayerStates:
    """The hidden states behind one layer."""

    states: Float[Tensor, "examples tokens hidden"]
    is_dropped: bool


@contextmanager
def recorded_states(encoder: nn.Module) -> Iterator[list[LayerStates]]:
    """Fill a list with the states of the forward passes within the context, first layer first.

    A shared layer counts as often as it is called, and a layer that was dropped still counts.

    Raises:
        ValueError: if it is not known where the architecture keeps its layers.
    """
    recorded: list[LayerStates] = []

    def record(layer: nn.Module, _: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        recorded.append(LayerStates(states, isinstance(layer, DroppedLayer)))

    # Layers may be replaced by others while a pruner runs, so hooks are not left on them.
    handles = [
        encoder.get_submodule(path).register_forward_hook(record)
        for path in layer_paths(encoder, architecture_of(encoder))
    ]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
