"""Structured pruning: heads, dimensions of heads, neurons and layers go as a whole."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from typing_extensions import override

from multiprune.budget.ledger import ParameterLedger, parts_of
from multiprune.models.modeling_multiprune import DroppedLayer
from multiprune.models.shrink import is_cut, resize_layer, shrink_layer
from multiprune.models.structure import COLUMNS, NEURONS, QUERY_KEY, ROWS, VALUE, along, layers_of
from multiprune.pruning.importance import Scores
from multiprune.pruning.pruner import Pruner
from multiprune.pruning.removal import (
    GRANULARITIES,
    HEAD_DIMENSIONS,
    LAYERS,
    Kept,
    UnitCosts,
    remove_least_important,
    smallest_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from torch.optim import Optimizer

    from multiprune.budget import Budget
    from multiprune.models.structure import Layer
    from multiprune.pruning.importance import Importance

#: Where the encoder keeps masks and importance while it is pruned, one module a layer.
STATE = "structure"


class LayerState(nn.Module):
    """Masks and importance of one layer's units, as buffers."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        dimensions = (layer.heads, layer.head_size)
        shapes = {"heads": (layer.heads,), "query_key": dimensions, "value": dimensions}
        shapes |= {"neurons": (layer.neurons,)}
        device = layer.output_of(VALUE).weight.device
        for name, shape in shapes.items():
            mask = torch.ones(shape, dtype=torch.bool, device=device)
            self.register_buffer(f"{name}_mask", mask)
            self.register_buffer(f"{name}_importance", torch.zeros(shape, device=device))
        self.register_buffer("layer_importance", torch.zeros((), device=device))

    def kept(self) -> Kept:
        """Return copies of the masks, on the CPU."""
        names = ("heads", "query_key", "value", "neurons")
        return Kept(*(self.get_buffer(f"{name}_mask").cpu().clone() for name in names))

    def keep(self, kept: Kept) -> None:
        """Take over masks."""
        for name in ("heads", "query_key", "value", "neurons"):
            self.get_buffer(f"{name}_mask").copy_(getattr(kept, name))

    def units(self) -> dict[str, Tensor]:
        """Return one mask a kind of unit; a head that is gone takes its dimensions along."""
        heads = self.get_buffer("heads_mask")[:, None]
        return {
            QUERY_KEY: (self.get_buffer("query_key_mask") & heads).reshape(-1),
            VALUE: (self.get_buffer("value_mask") & heads).reshape(-1),
            NEURONS: self.get_buffer("neurons_mask"),
        }

    def importance(self) -> Scores:
        """Return what ``smooth`` has gathered, on the CPU."""
        names = ("heads", "query_key", "value", "neurons", "layer")
        return Scores(*(self.get_buffer(f"{name}_importance").cpu() for name in names))

    def smooth(self, measured: Scores, smoothing: float) -> None:
        """Move the importance towards what was measured."""
        for name in ("heads", "query_key", "value", "neurons", "layer"):
            gathered = self.get_buffer(f"{name}_importance")
            gathered.lerp_(getattr(measured, name), 1 - smoothing)


class Structured(Pruner):
    """Removes what matters least, relative to its layer; what is gone stays gone.

    Args:
        budget: how much may stay; embeddings, poolers and norms are not touched.
        importance: what matters.
        granularity: kinds of what may go, some of ``heads``, ``head_dimensions`` (one of every head
            of a layer at a time), ``neurons``, ``layers``. A layer that stays keeps a head, a
            dimension and a neuron; one that goes leaves its norms on the residual stream.
    """

    def __init__(
        self,
        *,
        budget: Budget,
        importance: Importance,
        granularity: Sequence[str] = ("heads", "neurons"),
    ) -> None:
        super().__init__(budget=budget)
        unknown = [kind for kind in granularity if kind not in GRANULARITIES]
        if unknown or not granularity:
            raise ValueError(
                f"`granularity` must be some of {', '.join(GRANULARITIES)}, but is "
                f"{list(granularity)}."
            )
        self.importance = importance
        self.granularity = tuple(granularity)
        self.layers: list[Layer] = []
        #: What the gradients of a step say, until it is known that the optimizer took it.
        self._measured: list[Scores] = []
        self._final_masks: dict[str, Tensor] = {}

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        self._encoder = model if encoder is None else encoder
        self.layers = layers_of(self._encoder)
        self._check_heads_may_shrink()
        self._costs = [costs_of(layer, self.budget.of) for layer in self.layers]
        self._weights = [costs_of(layer, "encoder_linear") for layer in self.layers]
        self._parameters = [costs_of(layer, "encoder") for layer in self.layers]
        self._dense = self._dense_ledger(model, encoder)
        asked = self.budget.resolve(self._dense)
        self._excess = self._dense.dense_in(self.budget.of) - asked
        self._fixed = self._dense.dense_in(self.budget.of) - self._full(self._costs)
        states = [LayerState(layer) for layer in self.layers]
        kept = [state.kept() for state in states]
        least = self._fixed + smallest_size(self._costs, kept, self.granularity)
        if asked < least:
            raise ValueError(
                f"A budget of {asked:,} parameters ({self.budget.of}) must hold what pruning "
                f"{', '.join(self.granularity)} has to leave, but that is {least:,}."
            )
        # Nothing is inserted into a model that is refused.
        self._encoder.add_module(STATE, nn.ModuleList(states))
        self._hook = self._encoder.register_load_state_dict_pre_hook(  # type: ignore[no-untyped-call]
            resize_on_load
        )

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        if self.is_cut:
            return
        if self.importance.reads_gradients:
            measure = self.importance.measure
            self._measured = [measure(layer, number) for number, layer in enumerate(self.layers)]
        self._apply_masks(to_gradients=True)

    @override
    def after_step(self) -> None:
        if self.is_cut:
            return
        if self._measured:
            for state, measured in zip(self.states, self._measured, strict=True):
                state.smooth(measured, self.importance.smoothing)
            self._measured = []
        self._apply_masks()

    @override
    def skip_step(self) -> None:
        self._measured = []  # gradients that overflowed say nothing

    @override
    def prune(self, amount: float) -> None:
        if self.is_cut:
            return
        size = self._dense.dense_in(self.budget.of) - self._fixed - int(self._excess * amount)
        kept = [state.kept() for state in self.states]
        remove_least_important(
            self.scores(), kept, self._costs, size=size, granularity=self.granularity
        )
        for state, one in zip(self.states, kept, strict=True):
            state.keep(one)
        self._apply_masks()

    def scores(self) -> list[Scores]:
        """Return the present importance of everything that may go, by layer, on the CPU."""
        if self.importance.reads_gradients:
            return [state.importance() for state in self.states]
        return [self.importance.measure(one, i).cpu() for i, one in enumerate(self.layers)]

    @override
    def shrink(self, optimizer: Optimizer | None = None) -> bool:
        if self.is_cut or self._size(self._costs) == self._full(self._costs):
            return False
        for layer, state in zip(self.layers, self.states, strict=True):
            shrink_layer(layer, state.units(), optimizer)
        return True

    def parameter_masks(self) -> Iterator[tuple[nn.Linear, Tensor]]:
        """Yield the linear layers, before they are cut, with the masks of their whole weights."""
        for layer, state in zip(self.layers, self.states, strict=True):
            units = state.units()
            for linear, slices in layer.linear_layers():
                mask = along(slices, units)
                mask = mask[:, None] if slices.dim == ROWS else mask
                yield linear, mask.expand_as(linear.weight)

    @property
    def is_cut(self) -> bool:
        """Whether the layers have been cut to what is kept."""
        return any(is_cut(layer) for layer in self.layers)

    @override
    def finalize(self) -> None:
        self.shrink()
        self._final_ledger, self._final_masks = self.ledger(), dict(self.masks())
        delattr(self._encoder, STATE)
        self._hook.remove()
        self.layers = []

    @override
    def masks(self) -> Mapping[str, Tensor]:
        if not self.layers:
            return self._final_masks
        names = ["heads", "neurons"]
        names += ["query_key", "value"] if HEAD_DIMENSIONS in self.granularity else []
        return {
            f"{layer.path}.{name}": state.get_buffer(f"{name}_mask")
            for layer, state in zip(self.layers, self.states, strict=True)
            for name in names
        }

    @override
    def ledger(self) -> ParameterLedger:
        if not self.layers:
            return self._final_ledger
        kept = dict(self._dense.kept)
        weights = self._full(self._weights) - self._size(self._weights)
        kept["encoder_linear"] -= weights
        kept["encoder_other"] -= (
            self._full(self._parameters) - self._size(self._parameters) - weights
        )
        return replace(self._dense, kept=kept)

    @property
    @override
    def excess(self) -> int:
        return self._excess

    @property
    def states(self) -> list[LayerState]:
        """The state of each layer, which moves with the model."""
        states = self._encoder.get_submodule(STATE)
        assert isinstance(states, nn.ModuleList)
        return [one for one in states if isinstance(one, LayerState)]

    def _size(self, costs: Sequence[UnitCosts]) -> int:
        """Count what is kept in all layers."""
        kept = (state.kept() for state in self.states)
        return sum(one.size(cost) for one, cost in zip(kept, costs, strict=True))

    def _full(self, costs: Sequence[UnitCosts]) -> int:
        """Count what the layers had before they were pruned."""
        return sum(full_size(one, cost) for one, cost in zip(self.layers, costs, strict=True))

    def _dense_ledger(self, model: nn.Module, encoder: nn.Module | None) -> ParameterLedger:
        weights, all_parameters = self._full(self._weights), self._full(self._parameters)
        prunable = {"encoder_linear": weights, "encoder_other": all_parameters - weights}
        return replace(ParameterLedger.of(model, encoder), prunable=prunable)

    @torch.no_grad()
    def _apply_masks(self, *, to_gradients: bool = False) -> None:
        """Set what is pruned to zero, of weights or of their gradients."""
        for layer, state in zip(self.layers, self.states, strict=True):
            units = state.units()
            for linear, slices in layer.linear_layers():
                mask = along(slices, units)
                _mask(linear.weight, mask[:, None] if slices.dim == ROWS else mask, to_gradients)
                if linear.bias is not None:
                    # The bias of an output goes when its whole layer goes.
                    bias_mask = mask if slices.dim == ROWS else mask.any()
                    _mask(linear.bias, bias_mask, to_gradients)

    def _check_heads_may_shrink(self) -> None:
        architecture = self.layers[0].architecture
        if HEAD_DIMENSIONS in self.granularity and not architecture.resizable_heads:
            raise ValueError(
                f"Heads that lose dimensions must keep their scale, but those of "
                f"{type(self._encoder).__name__} do not: leave `head_dimensions` out of "
                "`granularity`."
            )
        if LAYERS in self.granularity and len(self.layers) == 1:
            raise ValueError(
                f"Dropping layers needs more than one, but {type(self._encoder).__name__} has one "
                "that is shared: leave `layers` out of `granularity`."
            )


def costs_of(layer: Layer, of: str) -> UnitCosts:
    """Return what the units of a layer cost in the parameters that ``of`` counts."""
    counts_biases = "encoder_other" in parts_of(of)
    costs = {QUERY_KEY: 0, VALUE: 0, NEURONS: 0}
    rest = 0
    for linear, slices in layer.linear_layers():
        has_bias = counts_biases and linear.bias is not None
        for units in slices.units:
            costs[units] += linear.weight.shape[1 - slices.dim] + (has_bias and slices.dim == ROWS)
        rest += linear.out_features if has_bias and slices.dim == COLUMNS else 0
    rest += _others(layer) if counts_biases else 0
    return UnitCosts(costs[QUERY_KEY] + costs[VALUE], costs[NEURONS], rest)


def _others(layer: Layer) -> int:
    """Count the norms that a layer takes along when it is dropped, as ModernBERT's do."""
    module = layer.encoder.get_submodule(layer.path)
    norms = [module.get_submodule(path) for path in layer.architecture.norms]
    staying = [*norms, *(linear for linear, _ in layer.linear_layers())]
    counted = {id(one) for part in staying for one in part.parameters()}
    return sum(one.numel() for one in module.parameters() if id(one) not in counted)


def full_size(layer: Layer, costs: UnitCosts) -> int:
    """Return what a layer costs before it is pruned."""
    dimensions = layer.heads * layer.head_size
    return dimensions * costs.head_dimension + layer.neurons * costs.neuron + costs.rest


def resize_on_load(
    encoder: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *_: Any
) -> None:
    """Cut an encoder that is being pruned to the shapes of a state that was saved after the cut.

    Make the optimizer afterwards if layers may be dropped: it would hold parameters that are gone.
    """
    if not hasattr(encoder, STATE) or _is_cut_already(encoder):
        return
    if not any(key.startswith(f"{prefix}{STATE}.") for key in state_dict):
        return  # not the state of an encoder that is being pruned
    layers = layers_of(encoder)
    if not any(_was_cut(layer, state_dict, prefix) for layer in layers):
        return
    for number, layer in enumerate(layers):
        saved = LayerState(layer)
        start = f"{prefix}{STATE}.{number}."
        saved.load_state_dict(
            {key[len(start) :]: one for key, one in state_dict.items() if key.startswith(start)}
        )
        resize_layer(layer, saved.units())


def _is_cut_already(encoder: nn.Module) -> bool:
    if any(isinstance(module, DroppedLayer) for module in encoder.modules()):
        return True
    masks = (state.units() for state in encoder.get_submodule(STATE).children())  # type: ignore[operator]
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


def _mask(parameter: Tensor, mask: Tensor, to_gradients: bool) -> None:
    target = parameter.grad if to_gradients else parameter.data
    if target is not None:
        target.mul_(mask)
