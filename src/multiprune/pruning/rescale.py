"""Repair without training: rescale the remaining units of each layer by least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from multiprune.models.architectures import NEURONS, VALUE
from multiprune.models.structure import layers_of
from multiprune.pruning.token_masks import token_masks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from multiprune.models.structure import Layer

#: Factors beyond it are not believed (Kwon et al. 2022, their code).
_LARGEST = 10.0


@dataclass
class Moments:
    """Running sums over tokens: of ``x x^T`` and ``x y^T``."""

    second: Float[Tensor, "in in"]
    cross: Float[Tensor, "in out"]

    def add(self, inputs: Float[Tensor, "tokens in"], outputs: Float[Tensor, "tokens out"]) -> None:
        """Add tokens."""
        self.second += inputs.T @ inputs
        self.cross += inputs.T @ outputs


def unit_factors(
    moments: Moments, weight: Float[Tensor, "out in"], units: int, *, damping: float
) -> Float[Tensor, "{units}"]:
    """Return the factors, one a unit, with which a linear layer comes closest to its targets.

    They minimise ``sum over tokens of |W (m * x) - y|^2 + d |m - 1|^2`` (Kwon et al. 2022,
    section 4.3), where ``m`` is one number for all inputs of a unit and ``d`` is ``damping``
    times the mean of ``|W_u x_u|^2`` over the units ``u``. Units that do nothing keep theirs at 1.

    Args:
        moments: of inputs ``x`` and targets ``y``, without the bias.
        weight: ``W``; equally many neighbouring inputs are one unit.
        units: their number.
        damping: how much the factors are drawn to 1; positive.
    """
    size = weight.shape[1] // units
    products = moments.second * (weight.T @ weight)
    gram = products.view(units, size, units, size).sum((1, 3))
    target = (moments.cross * weight.T).sum(1).view(units, size).sum(1)
    ridge = damping * gram.diagonal().mean().expand(units)
    ridge = torch.where(ridge == 0, 1.0, ridge)
    change: Tensor = torch.linalg.solve(gram + ridge.diag(), target - gram.sum(1))
    return 1 + change


@torch.no_grad()
def rescale(
    encoder: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    *,
    damping: float = 0.1,
) -> int:
    """Rescale heads and neurons of a cut encoder, first layer first; return how many layers.

    What each output projection and the residual beside it add up to is drawn to the same sum of
    ``teacher``, the encoder before the cut, for the same tokens; padding plays no part. So a layer
    also makes up for what those before it leave wrong (Kwon et al. 2022, section 4.3; the residuals
    are those of their code, which does not rescale the first attention). Where a factor leaves
    [-10, 10], that layer and all later ones stay as they are. Each layer takes two passes of all
    batches through both encoders, as far as to the layer.

    Args:
        encoder: in evaluation mode; no layer may have been dropped.
        teacher: likewise.
        batches: inputs of the encoders.
        damping: see ``unit_factors``.
    """
    layers = layers_of(encoder)
    for number, (own, whole) in enumerate(zip(layers, layers_of(teacher), strict=True)):
        scaled: list[tuple[nn.Linear, Tensor]] = []
        for kind, linear in own.outputs():
            units = own.neurons if kind == NEURONS else own.heads
            masks = [_mask(own, linear, inputs) for inputs in batches]
            moments = _moments((encoder, linear), (teacher, whole.output_of(kind)), batches, masks)
            factors = unit_factors(moments, linear.weight.double(), units, damping=damping)
            scaled.append((linear, linear.weight.clone()))
            if not bool((factors.abs() <= _LARGEST).all()):
                for changed, before in scaled:
                    changed.weight.copy_(before)
                return number
            linear.weight.mul_(factors.repeat_interleave(linear.in_features // units))
    return len(layers)


def _moments(
    own: tuple[nn.Module, nn.Linear],
    teacher: tuple[nn.Module, nn.Linear],
    batches: Sequence[Mapping[str, Tensor]],
    masks: Sequence[Tensor],
) -> Moments:
    linear = own[1]
    like = linear.weight.double()
    size = linear.in_features
    moments = Moments(like.new_zeros(size, size), like.new_zeros(size, linear.out_features))
    bias = 0 if linear.bias is None else linear.bias
    for inputs, mask in zip(batches, masks, strict=True):
        read = _passed(*own, inputs)
        given = _passed(*teacher, inputs)
        for one, whole in zip(read, given, strict=True):
            wanted = whole.output + whole.residual - one.residual
            moments.add(one.states[mask], wanted[mask] - bias)
    return moments


def _mask(
    layer: Layer, linear: nn.Linear, inputs: Mapping[str, Tensor]
) -> Bool[Tensor, "examples tokens"]:
    masks = token_masks(layer.encoder, (), inputs)
    return masks.of(decoding=layer.decodes(linear))


class _EnoughError(Exception):
    """Ends a pass whose rest is not needed."""


@dataclass
class _Passed:
    """What an output projection reads and gives, and what its output is added to."""

    states: Float[Tensor, "examples tokens in"]
    output: Float[Tensor, "examples tokens out"]
    residual: Float[Tensor, "examples tokens out"]


def _passed(encoder: nn.Module, linear: nn.Linear, inputs: Mapping[str, Tensor]) -> list[_Passed]:
    """Follow the residual stream to an output projection, as often as that is called.

    A layer reads the stream, an output projection adds to it, and a norm upon it replaces it.
    """
    passed: list[_Passed] = []
    layers = layers_of(encoder)
    is_shared = len(layers) < encoder.config.num_hidden_layers  # type: ignore[operator,union-attr]
    stream: dict[bool, Tensor] = {}  # whether it is that of a decoder

    def follow(layer: Layer, decoding: bool) -> Iterator[RemovableHandle]:
        def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            stream[decoding] = args[0] if args else kwargs["hidden_states"]

        def replace(_: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
            stream[decoding] = output

        def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if module is linear:
                passed.append(_Passed(args[0], output, stream[decoding]))
                if not is_shared:
                    raise _EnoughError
            stream[decoding] = stream[decoding] + output

        module = encoder.get_submodule(layer.path)
        yield module.register_forward_pre_hook(begin, with_kwargs=True)
        for path in layer.architecture.norms:
            yield module.get_submodule(path).register_forward_hook(replace)
        for _, output in layer.outputs():
            yield output.register_forward_hook(add)

    handles = [
        handle
        for layer in layers
        for handle in follow(layer, layer.decodes(layer.output_of(VALUE)))
    ]
    try:
        encoder(**inputs)
    except _EnoughError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return passed
