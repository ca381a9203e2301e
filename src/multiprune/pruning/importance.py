"""Importance of heads, head dimensions, neurons and layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.models import hidden
from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE

if TYPE_CHECKING:
    from torch import nn

    from multiprune.models.hidden import HiddenStates
    from multiprune.models.structure import Layer


@dataclass(frozen=True)
class Scores:
    """Importance of everything in one layer that may go, of each example or of all.

    Attributes:
        heads: of each head.
        query_key: of the dimensions of each head's query and key.
        value: of the dimensions of each head's value.
        neurons: of each neuron.
        blocks: of the attention, and of the feed-forward network.
        layer: of the layer as a whole.
    """

    heads: Float[Tensor, "*examples heads"]
    query_key: Float[Tensor, "*examples heads head_size"]
    value: Float[Tensor, "*examples heads head_size"]
    neurons: Float[Tensor, "*examples neurons"]
    blocks: Float[Tensor, "*examples 2"]
    layer: Float[Tensor, "*examples"]

    def cpu(self) -> Scores:
        """Return the same on the CPU."""
        return Scores(*(tensor.cpu() for tensor in vars(self).values()))


class Importance(ABC):
    """A way to estimate importance."""

    #: Whether ``measure`` reads gradients, and is called before every optimizer step.
    reads_gradients = False
    #: Of the exponential moving average over the steps, if it is measured at every step.
    smoothing = 0.0
    #: Whether it is a loss, to be divided by the parameters that removing a unit saves; otherwise
    #: units compare only with those of the same kind and layer.
    is_loss = False
    #: Whether it is known of hidden dimensions, too, by ``measure_hidden``.
    knows_hidden = False

    @abstractmethod
    def measure(self, layer: Layer, number: int) -> Scores:
        """Return the importance within the ``number``-th layer as it stands."""

    def measure_hidden(self, states: HiddenStates) -> Float[Tensor, "hidden"]:
        """Return the importance of hidden dimensions as they stand."""
        raise NotImplementedError


class GateGradient(Importance):
    """First-order change of the loss when a unit is closed, smoothed over steps.

    Michel et al. (2019), section 4.1, for heads; the same for every other unit. A gate ``z`` on
    input ``j`` of a linear layer has ``dL/dz_j = sum_i W[i, j] dL/dW[i, j]``, so no gate is needed.

    Args:
        smoothing: of the exponential moving average over steps (GRAIN, Yang et al. 2023: 0.998).
    """

    reads_gradients = True
    knows_hidden = True

    def __init__(self, *, smoothing: float) -> None:
        check_number("smoothing", smoothing, at_least=0, below=1)
        self.smoothing = smoothing

    @override
    def measure(self, layer: Layer, number: int) -> Scores:
        return Scores(*(part.abs() for part in vars(gate_gradients(layer)).values()))

    @override
    def measure_hidden(self, states: HiddenStates) -> Tensor:
        return hidden.gate_gradients(states).abs()


class GateFisher(GateGradient):
    """Second-order estimate of that change, smoothed over steps.

    With the Fisher information of the gates in place of the Hessian, closing a unit costs
    ``(dL/dz)^2 / 2`` on average (Kwon et al. 2022, "A Fast Post-Training Pruning Framework for
    Transformers", section 4.1; the factor is left out). Such losses compare across kinds and layers
    of any size, per parameter that they save.
    """

    is_loss = True

    @override
    def measure(self, layer: Layer, number: int) -> Scores:
        return Scores(*(part.square() for part in vars(gate_gradients(layer)).values()))

    @override
    def measure_hidden(self, states: HiddenStates) -> Tensor:
        return hidden.gate_gradients(states).square()


class WeightMagnitude(Importance):
    """The Euclidean norm of all weights that a unit owns; of a hidden dimension, embeddings too."""

    knows_hidden = True

    @override
    @torch.no_grad()
    def measure(self, layer: Layer, number: int) -> Scores:
        device = layer.output_of(VALUE).weight.device
        squares = {
            units: torch.zeros(layer.size_of(units), device=device)
            for units in (QUERY_KEY, VALUE, NEURONS)
        }
        for linear, slices in layer.linear_layers():
            by_unit = linear.weight.float().square().sum(1 - slices.dim)
            sizes = [layer.size_of(units) for units in slices.units]
            for units, part in zip(slices.units, torch.split(by_unit, sizes), strict=True):
                squares[units] += part
        shape = (layer.heads, layer.head_size)
        query_key, value = squares[QUERY_KEY].view(shape), squares[VALUE].view(shape)
        blocks = torch.stack([query_key.sum() + value.sum(), squares[NEURONS].sum()])
        return Scores(
            heads=(query_key + value).sum(1).sqrt(),
            query_key=query_key.sqrt(),
            value=value.sqrt(),
            neurons=squares[NEURONS].sqrt(),
            blocks=blocks.sqrt(),
            layer=blocks.sum().sqrt(),
        )

    @override
    @torch.no_grad()
    def measure_hidden(self, states: HiddenStates) -> Tensor:
        found = torch.zeros(states.size, device=states.norms[0].weight.device)
        for module, name, dim in states.parameters():
            weight = module.get_parameter(name)
            if weight.dim() == 2:  # neither biases nor norms
                found += weight.float().square().sum(1 - dim)
        return found.sqrt()


class RandomImportance(Importance):
    """Random numbers, as a control: the same at every call, and on every rank."""

    knows_hidden = True

    def __init__(self, *, seed: int = 0) -> None:
        check_number("seed", seed, at_least=0, whole=True)
        self.seed = seed

    @override
    def measure(self, layer: Layer, number: int) -> Scores:
        device = layer.output_of(VALUE).weight.device
        generator = self._generator(number)

        def draw(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator).to(device)

        shape = (layer.heads, layer.head_size)
        units = (draw(layer.heads), draw(*shape), draw(*shape), draw(layer.neurons))
        whole = draw(1)[0]
        return Scores(*units, blocks=draw(2), layer=whole)

    @override
    def measure_hidden(self, states: HiddenStates) -> Tensor:
        drawn = torch.rand(states.size, generator=self._generator(100_002))  # as of no layer
        return drawn.to(states.norms[0].weight.device)

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 100_003 + number)


@torch.no_grad()
def gate_gradients(layer: Layer) -> Scores:
    """Return ``dL/dz`` of gates, open at 1, on all units of a layer, its blocks and itself."""
    shape = (layer.heads, layer.head_size)
    value = input_gate_gradient(layer.output_of(VALUE)).view(shape)
    neurons = input_gate_gradient(layer.output_of(NEURONS)) if layer.neurons else value.new_empty(0)
    query = next(one for one, it in layer.linear_layers() if QUERY_KEY in it.units)
    query_key = output_gate_gradient(query)[: layer.size_of(QUERY_KEY)].view(shape)
    blocks = torch.stack([value.sum(), neurons.sum()])
    return Scores(value.sum(1), query_key, value, neurons, blocks, blocks.sum())


def input_gate_gradient(linear: nn.Linear) -> Float[Tensor, "{linear.in_features}"]:
    """Return ``dL/dz`` of gates, open at 1, on the inputs of a linear layer."""
    if linear.weight.grad is None:
        return torch.zeros(linear.in_features, device=linear.weight.device)
    return (linear.weight * linear.weight.grad).sum(0).float()


def output_gate_gradient(linear: nn.Linear) -> Float[Tensor, "{linear.out_features}"]:
    """Return ``dL/dz`` of gates, open at 1, on the outputs of a linear layer."""
    if linear.weight.grad is None:
        return torch.zeros(linear.out_features, device=linear.weight.device)
    gradient = (linear.weight * linear.weight.grad).sum(1)
    if linear.bias is not None and linear.bias.grad is not None:
        gradient = gradient + linear.bias * linear.bias.grad
    return gradient.float()


def relative_to_layer(
    scores: Float[Tensor, "*units"], kept: Bool[Tensor, "*units"]
) -> Float[Tensor, "*units"]:
    """Divide by the root mean square of what is kept, so that layers and kinds compare.

    Michel et al. (2019) divide by the Euclidean norm, which is the same up to a factor for equal
    numbers of heads; the mean also makes 12 heads comparable with 3,072 neurons.
    """
    mean_square = scores[kept].double().square().mean()
    return scores / mean_square.sqrt().clamp(min=torch.finfo(torch.float32).tiny)
