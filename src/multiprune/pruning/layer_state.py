"""Buffers of a layer in structured pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from multiprune.models.architectures import COLUMNS, NEURONS, QUERY_KEY, VALUE
from multiprune.models.modeling_multiprune import DroppedLayer
from multiprune.models.shrink import resize_layer
from multiprune.models.structure import layers_of
from multiprune.pruning.hidden_state import HIDDEN_STATE, HiddenState
from multiprune.pruning.removal import Kept

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from multiprune.models.structure import Layer

#: Where the encoder keeps it, one module a layer, and one of hidden dimensions if these may go.
STATE = "structure"

_MASKS = ("heads", "query_key", "value", "neurons")


class LayerState(nn.Module):
    """Masks of one layer's units, as buffers."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        dimensions = (layer.heads, layer.head_size)
        shapes = ((layer.heads,), dimensions, dimensions, (layer.neurons,))
        device = layer.output_of(VALUE).weight.device
        for name, shape in zip(_MASKS, shapes, strict=True):
            mask = torch.ones(shape, dtype=torch.bool, device=device)
            self.register_buffer(f"{name}_mask", mask)

    def kept(self) -> Kept:
        """Return copies of the masks, on the CPU."""
        return Kept(*(self.get_buffer(f"{name}_mask").cpu().clone() for name in _MASKS))

    def keep(self, kept: Kept) -> None:
        """Take over masks."""
        for name in _MASKS:
            self.get_buffer(f"{name}_mask").copy_(getattr(kept, name))

    def units(self) -> dict[str, Tensor]:
        """Return one mask a kind of unit; a head that is gone takes its dimensions along."""
        heads = self.get_buffer("heads_mask")[:, None]
        return {
            QUERY_KEY: (self.get_buffer("query_key_mask") & heads).reshape(-1),
            VALUE: (self.get_buffer("value_mask") & heads).reshape(-1),
            NEURONS: self.get_buffer("neurons_mask"),
        }


def resize_on_load(
    encoder: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *_: Any
) -> None:
    """Cut an encoder that is being pruned to the shapes of a state that was saved after the cut.

    Make the optimizer afterwards if layers may be dropped: it would hold parameters that are gone.
    """
    if not hasattr(encoder, STATE):
        return
    if not any(key.startswith(f"{prefix}{STATE}.") for key in state_dict):
        return  # not the state of an encoder that is being pruned
    if _is_cut_already(encoder):
        _check_same_cut(encoder, state_dict, prefix)
        return
    if (hidden := hidden_state_in(encoder)) is not None:
        hidden.expect(encoder, state_dict, prefix)
    layers = layers_of(encoder)
    if not any(_was_cut(layer, state_dict, prefix) for layer in layers):
        return
    for number, layer in enumerate(layers):
        saved = LayerState(layer)
        start = f"{prefix}{STATE}.{number}."
        saved.load_state_dict({name: state_dict[f"{start}{name}"] for name in saved.state_dict()})
        resize_layer(layer, saved.units())


def layer_states_in(encoder: nn.Module) -> list[LayerState]:
    """Return what an encoder that is being pruned carries of each layer."""
    return [one for one in encoder.get_submodule(STATE).children() if isinstance(one, LayerState)]


def hidden_state_in(encoder: nn.Module) -> HiddenState | None:
    """Return what it carries of its hidden dimensions, if these may go."""
    found = getattr(getattr(encoder, STATE, None), HIDDEN_STATE, None)
    return found if isinstance(found, HiddenState) else None


def _check_same_cut(encoder: nn.Module, state_dict: Mapping[str, Tensor], prefix: str) -> None:
    """Refuse a state of other shapes, or of other units, than a cut encoder has."""
    for name, own in encoder.state_dict().items():
        saved = state_dict.get(f"{prefix}{name}")
        is_mask = name.startswith(f"{STATE}.") and name.endswith("_mask")
        if saved is None or (saved.shape == own.shape and not is_mask):
            continue
        if saved.shape == own.shape and saved.to(own.device).equal(own):
            continue
        raise ValueError(
            "The state is of an encoder that was cut otherwise, or not yet, and this one has been "
            "cut: load it into a newly prepared model, and make the optimizer anew."
        )


def _is_cut_already(encoder: nn.Module) -> bool:
    if any(isinstance(module, DroppedLayer) for module in encoder.modules()):
        return True
    hidden = hidden_state_in(encoder)
    if hidden is not None and hidden.is_cut:
        return True
    masks = (state.units() for state in layer_states_in(encoder))
    return any(
        layer.size_of(units) != mask.numel()
        for layer, by_unit in zip(layers_of(encoder), masks, strict=True)
        for units, mask in by_unit.items()
    )


def _was_cut(layer: Layer, state_dict: Mapping[str, Tensor], prefix: str) -> bool:
    for path, slices in layer.architecture.linear.items():
        saved = state_dict.get(f"{prefix}{layer.path}.{path}.weight")
        if saved is None and slices.units == (VALUE,) and slices.dim == COLUMNS:
            return True  # the layer was dropped
        if saved is not None and saved.shape[slices.dim] != sum(map(layer.size_of, slices.units)):
            return True
    return False
