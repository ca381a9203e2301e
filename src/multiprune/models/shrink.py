"""Make pruned layers physically smaller, and describe their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from multiprune.models.architectures import COLUMNS, HIDDEN_KNOWN, NEURONS, ROWS, VALUE
from multiprune.models.cut import cut_parameter, forget, resize_parameter
from multiprune.models.modeling_multiprune import (
    POSITION_BIASES,
    DroppedLayer,
    FactoredLinear,
    PositionBias,
    dense_class,
    one_head,
)
from multiprune.models.structure import along, architectures_of, layer_paths

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from multiprune.models.architectures import Architecture
    from multiprune.models.structure import Layer


def is_cut(layer: Layer) -> bool:
    """Whether a layer is smaller than it was when it was described."""
    modules = layer.encoder.get_submodule(layer.path).modules()
    if any(isinstance(one, DroppedLayer) for one in modules):
        return True
    return any(
        linear.weight.shape[slices.dim] != sum(map(layer.size_of, slices.units))
        for linear, slices in layer.linear_layers()
    )


def shrink_layer(
    layer: Layer, kept: Mapping[str, Bool[Tensor, "_"]], optimizer: Optimizer | None = None
) -> None:
    """Cut a layer, and the optimizer's moments of it, to the units that are kept.

    If pruned units are zero, the layer computes what it computed before. The parameters of a layer
    that is dropped leave the optimizer. ``kept`` holds one boolean mask a kind of unit; with no
    head left, the attention is dropped, and with no neuron either, the layer.
    """
    if _drop(layer, kept, optimizer):
        return
    for linear, slices in layer.linear_layers():
        index = along(slices, kept).nonzero()[:, 0]
        cut_parameter(linear, "weight", slices.dim, index, optimizer)
        if linear.bias is not None and slices.dim == ROWS:
            cut_parameter(linear, "bias", 0, index, optimizer)
        elif linear.bias is not None and not len(index):
            forget([linear.bias], optimizer)
            linear.register_parameter("bias", None)
        linear.out_features, linear.in_features = linear.weight.shape
    _resize_attention(layer, kept)


def resize_layer(layer: Layer, kept: Mapping[str, Bool[Tensor, "_"]]) -> None:
    """Give a layer the shapes of one that was cut; its weights are lost, to be loaded."""
    if _drop(layer, kept):
        return
    for linear, slices in layer.linear_layers():
        size = int(along(slices, kept).count_nonzero())
        resize_parameter(linear, "weight", slices.dim, size)
        if linear.bias is not None and slices.dim == ROWS:
            resize_parameter(linear, "bias", 0, size)
        elif linear.bias is not None and not size:
            linear.register_parameter("bias", None)
        linear.out_features, linear.in_features = linear.weight.shape
    _resize_attention(layer, kept)


def _drop(
    layer: Layer, kept: Mapping[str, Bool[Tensor, "_"]], optimizer: Optimizer | None = None
) -> bool:
    """Drop the layer, or its attention, if nothing of it is kept; return whether it has gone."""
    if kept[VALUE].any():
        return False
    has_neurons = bool(kept[NEURONS].any())
    path, left = layer.dropped(attention_only=has_neurons)
    parent, _, name = path.rpartition(".")
    module = layer.encoder.get_submodule(path)
    staying = {id(parameter) for parameter in left.parameters()}
    forget([one for one in module.parameters() if id(one) not in staying], optimizer)
    layer.encoder.get_submodule(parent).add_module(name, left.train(module.training))
    return not has_neurons


def heads_left(layer: Layer, kept: Mapping[str, Bool[Tensor, "_"]]) -> list[int]:
    """Return the numbers of the heads that are kept of a layer."""
    heads: list[int] = (
        kept[VALUE].view(layer.heads, layer.head_size).any(1).nonzero()[:, 0].tolist()
    )
    return heads


def attention_shape(layer: Layer, kept: Mapping[str, Bool[Tensor, "_"]]) -> dict[str, int]:
    """Return the attributes of an attention that say its shape, with the units that are kept."""
    by_head = kept[VALUE].view(layer.heads, layer.head_size).sum(1)
    count, size = int(by_head.count_nonzero()), int(by_head.max())
    architecture = layer.architecture
    return (
        {architecture.head_size: size}
        | dict.fromkeys(architecture.head_count, count)
        | dict.fromkeys(architecture.head_width, count * size)
    )


def _resize_attention(layer: Layer, kept: Mapping[str, Bool[Tensor, "_"]]) -> None:
    if not kept[VALUE].any():
        return
    attention, architecture = layer.attention, layer.architecture
    for name, value in attention_shape(layer, kept).items():
        setattr(attention, name, value)
    heads = heads_left(layer, kept)
    if architecture.position_bias is not None and len(heads) < layer.heads:
        _select_position_bias(architecture.position_bias, attention, heads)


def _select_position_bias(kind: type[PositionBias], attention: nn.Module, heads: list[int]) -> None:
    for hook in attention._forward_pre_hooks.values():
        if isinstance(hook, PositionBias):  # of an earlier cut
            hook.heads = [hook.heads[head] for head in heads]
            return
    kind.attach(attention, heads)


def shapes_of(encoder: PreTrainedModel) -> dict[str, Any]:
    """Describe what ``reshape`` must change in the dense model of ``encoder.config``.

    Empty if all layers have their dense shapes.
    """
    is_one_head = _is_built_with_one_head(encoder)
    dense = _dense_on_meta(encoder, with_one_head=is_one_head)
    shapes: dict[str, dict[str, Any]] = {
        key: {} for key in ("linear", "low_rank", "attributes", *POSITION_BIASES, "dropped")
    }
    for path, module in encoder.named_modules():
        if isinstance(module, DroppedLayer):
            shapes["dropped"][path] = _describe_dropped(module)
    for path, module in dense.named_modules():
        here = _submodule(encoder, path)
        if isinstance(module, nn.Linear) and isinstance(here, nn.Linear):
            _describe_linear(path, here, module, shapes)
    # Where hidden dimensions were cut, fewer heads may have the shapes of a dense layer.
    may_differ = encoder.config.model_type in HIDDEN_KNOWN
    if shapes["linear"] or shapes["dropped"] or may_differ:
        _describe_attentions(encoder, dense, shapes)
    described: dict[str, Any] = {key: value for key, value in shapes.items() if value}
    return described | ({"one_head": True} if is_one_head else {})


def _describe_dropped(left: DroppedLayer) -> dict[str, Any]:
    described = {"norms": left.norms, "returns_tuple": left.returns_tuple}
    return described | ({"is_branch": True} if left.is_branch else {})


def per_layer_config(
    encoder: PreTrainedModel, shapes: Mapping[str, Any]
) -> dict[int | str, dict[str, Any]]:
    """Say the same in the words of transformers' ``per_layer_config``, as far as it has them.

    Empty where it has none: for layers that are shared or of several kinds, and for ranks. It asks
    for a number of every layer if the config has none of that name for all of them.
    """
    if not shapes.keys() & {"linear", "attributes", "dropped"}:
        return {}
    architecture, *others = architectures_of(encoder)
    if others or architecture.layers.count("*") > 1 or not architecture.per_layer_config:
        return {}
    return {
        number: _describe_layer(encoder, path, architecture)
        for number, path in enumerate(layer_paths(encoder, architecture))
    }


def _describe_layer(
    encoder: PreTrainedModel, path: str, architecture: Architecture
) -> dict[str, Any]:
    layer = encoder.get_submodule(path)
    if isinstance(layer, DroppedLayer):
        config = encoder.config
        described = {
            "skip": ["attention", "mlp"],
            "num_attention_heads": 0,
            "head_dim": config.hidden_size // config.num_attention_heads,
        }
        return described | {architecture.neuron_count: 0}
    widths = {
        slices.units[0]: _inputs_of(module)
        for name, slices in architecture.linear.items()
        if slices.dim == COLUMNS and (module := _submodule(layer, name)) is not None
    }
    config, attention = encoder.config, _submodule(layer, architecture.attention)
    dense_size = config.hidden_size // config.num_attention_heads
    size = int(getattr(attention, architecture.head_size, dense_size))
    skipped = {"attention": VALUE not in widths, "mlp": not widths[NEURONS]}
    skips = {"skip": [name for name, is_gone in skipped.items() if is_gone]}
    return (skips if skips["skip"] else {}) | {
        "num_attention_heads": widths.get(VALUE, 0) // size,
        "head_dim": size,
        architecture.neuron_count: widths[NEURONS],
    }


def _inputs_of(module: nn.Module) -> int:
    first = module.down if isinstance(module, FactoredLinear) else module
    return int(first.get_parameter("weight").shape[1])


def _is_built_with_one_head(encoder: PreTrainedModel) -> bool:
    config = encoder.config
    return config.model_type in HIDDEN_KNOWN and config.hidden_size % config.num_attention_heads > 0


def _dense_on_meta(encoder: PreTrainedModel, *, with_one_head: bool) -> nn.Module:
    config = encoder.config
    with torch.device("meta"), one_head(config) if with_one_head else nullcontext():
        dense: nn.Module = dense_class(config)(config)
    return dense


def _describe_linear(
    path: str, here: nn.Linear, dense: nn.Linear, shapes: dict[str, dict[str, Any]]
) -> None:
    if isinstance(here, FactoredLinear):
        shapes["low_rank"][path] = here.in_features
    shape = (here.weight.shape[0], _inputs_of(here))
    if shape != dense.weight.shape:
        shapes["linear"][path] = list(shape)


def _describe_attentions(
    encoder: nn.Module, dense: nn.Module, shapes: dict[str, dict[str, Any]]
) -> None:
    for architecture in architectures_of(encoder):
        for layer in layer_paths(dense, architecture):
            path = f"{layer}.{architecture.attention}"
            if hasattr(_submodule(encoder, path), architecture.head_size):
                _describe_attention(path, encoder, dense, architecture, shapes)


def _describe_attention(
    path: str,
    encoder: nn.Module,
    dense: nn.Module,
    architecture: Architecture,
    shapes: dict[str, dict[str, Any]],
) -> None:
    attention, original = encoder.get_submodule(path), dense.get_submodule(path)
    names = (architecture.head_size, *architecture.head_count, *architecture.head_width, "scaling")
    changed = {
        name: getattr(attention, name)
        for name in names
        if hasattr(original, name) and getattr(attention, name) != getattr(original, name)
    }
    if changed:
        shapes["attributes"][path] = changed
    for hook in attention._forward_pre_hooks.values():
        for key, kind in POSITION_BIASES.items():
            if type(hook) is kind:
                shapes[key][path] = hook.heads


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None
