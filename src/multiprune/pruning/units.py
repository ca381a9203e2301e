"""Shared parts of structured pruning: masks of units, budget, and removal.

Heads, dimensions of heads, neurons and layers go as a whole, the lowest scores first, and what is
gone stays gone.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from typing_extensions import override

from multiprune.budget.budget import reachable
from multiprune.budget.ledger import (
    ParameterLedger,
    refuse_computed,
    shared_parameters,
)
from multiprune.models.architectures import NEURONS, ROWS
from multiprune.models.saving import save_with_shapes
from multiprune.models.shrink import is_cut, shrink_layer
from multiprune.models.structure import along, layers_of
from multiprune.pruning.finite import compared_scores, refuse_nan
from multiprune.pruning.layer_state import STATE, LayerState, resize_on_load
from multiprune.pruning.pruner import Pruner
from multiprune.pruning.ready import NotReadyError, refuse_compiled
from multiprune.pruning.removal import (
    BLOCKS,
    GRANULARITIES,
    HEAD_DIMENSIONS,
    LAYERS,
    UnitCosts,
    largest_unit,
    smallest_size,
)
from multiprune.pruning.removal_order import remove_least_important
from multiprune.pruning.unit_costs import costs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch.optim import Optimizer

    from multiprune.budget import Budget
    from multiprune.models.structure import Layer
    from multiprune.pruning.importance import Scores
    from multiprune.pruning.ready import Weight
    from multiprune.pruning.removal import Kept


class UnitPruner(Pruner):
    """Removes the units with the lowest scores.

    Args:
        budget: how much may stay; embeddings, poolers and norms are not touched.
        granularity: kinds of what may go, some of ``heads``, ``head_dimensions`` (one of every head
            of a layer at a time), ``neurons``, ``blocks`` (attention or feed-forward network of a
            layer), ``layers``. A block that stays keeps a head and a dimension, or a neuron; one
            that goes leaves its norms on the residual stream.
    """

    def __init__(self, *, budget: Budget, granularity: Sequence[str]) -> None:
        super().__init__(budget=budget)
        unknown = [kind for kind in granularity if kind not in GRANULARITIES]
        if unknown or not granularity:
            raise ValueError(
                f"`granularity` must be some of {', '.join(GRANULARITIES)}, but is "
                f"{list(granularity)}."
            )
        self.granularity = tuple(granularity)
        self.layers: list[Layer] = []
        self._final_masks: dict[str, Tensor] = {}

    @abstractmethod
    def scores(self) -> list[Scores]:
        """Return the present scores by layer, on the CPU: the lowest of all layers go first."""

    def new_state(self, layer: Layer) -> LayerState:
        """Return what the encoder is to carry of a layer."""
        return LayerState(layer)

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        self._encoder = model if encoder is None else encoder
        refuse_compiled(self._encoder)
        refuse_computed(self._encoder)
        self.layers = layers_of(self._encoder)
        if self.by_task is not None:
            self.by_task.prepare(model)
        self._check_heads_may_shrink()
        self._check_weights_are_untied(model)
        self._costs = [costs_of(layer, self.budget.of) for layer in self.layers]
        self._weights = [costs_of(layer, "encoder_linear") for layer in self.layers]
        self._parameters = [costs_of(layer, "encoder") for layer in self.layers]
        self._dense = self._dense_ledger(model, encoder)
        states = [self.new_state(layer) for layer in self.layers]
        kept = [state.kept() for state in states]
        dense = self._dense.dense_in(self.budget.of)
        self._fixed = dense - self._full(self._costs)
        self._spare = largest_unit(self._costs, kept, self.granularity) - 1
        least = self._fixed + smallest_size(self._costs, kept, self.granularity)
        asked = self.budget.resolve(self._dense, least)
        self._excess = dense - asked
        if asked < least:
            raise ValueError(
                f"A budget of {asked:,} parameters ({self.budget.of}) must hold what pruning "
                f"{', '.join(self.granularity)} has to leave, but that is {least:,}. "
                f"{reachable(least, dense)}."
            )
        # Nothing is inserted into a model that is refused.
        self._encoder.add_module(STATE, nn.ModuleList(states))
        self._hook = self._encoder.register_load_state_dict_pre_hook(  # type: ignore[no-untyped-call]
            resize_on_load
        )
        self.progress.attach(self._encoder, self)
        save_with_shapes(model, self._encoder)

    @override
    def weights(self) -> Iterable[Weight]:
        for layer in self.layers:
            for path, linear in layer.named_linear_layers():
                yield f"{layer.path}.{path}.weight", linear, "weight"

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        if not self.is_cut:
            self._apply_masks(to_gradients=True)

    @override
    def after_step(self) -> None:
        if not self.is_cut:
            self._apply_masks()

    @override
    def skip_step(self) -> None:
        pass  # only gradients were changed

    @override
    def prune(self, amount: float) -> None:
        if self.is_cut:
            return
        kept = [state.kept() for state in self.states]
        remove_least_important(
            self.finite_scores(kept),
            kept,
            self._costs,
            size=self.size_at(amount),
            granularity=self.granularity,
            final=self.size_at(1.0),
        )
        for state, one in zip(self.states, kept, strict=True):
            state.keep(one)
        self._apply_masks()

    def finite_scores(self, kept: Sequence[Kept]) -> list[Scores]:
        """Return the present scores, or raise a FloatingPointError if they or weights are NaN."""
        linear = ([one.weight for one, _ in layer.linear_layers()] for layer in self.layers)
        paths = [layer.path for layer in self.layers]
        refuse_nan("Weights", dict(zip(paths, linear, strict=True)), self._when())
        scores = self.scores()
        ranked = (compared_scores(*one, self.granularity) for one in zip(scores, kept, strict=True))
        refuse_nan("Scores", dict(zip(paths, ranked, strict=True)), self._when())
        return scores

    def of_all_tasks(
        self, scores: Callable[[], list[Scores]], kept: Sequence[Kept]
    ) -> list[Scores]:
        """Return scores as they are, or joined from those of each task."""
        if self.by_task is None:
            return scores()
        return self.by_task.joined_units(scores, kept, self.granularity)

    def size_at(self, amount: float) -> int:
        """Return what the layers may have, ``amount`` of the way from dense to the budget."""
        return self._dense.dense_in(self.budget.of) - self._fixed - int(self._excess * amount)

    @override
    def shrink(self, optimizer: Optimizer | None = None) -> bool:
        return self._cut(optimizer)

    def _cut(self, optimizer: Optimizer | None = None) -> bool:
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
    def _make_permanent(self) -> None:
        self._cut()
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
            if name != NEURONS or layer.neurons
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
        return sum(
            cost.of(one.heads, one.head_size, one.neurons)
            for one, cost in zip(self.layers, costs, strict=True)
        )

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

    def _check_weights_are_untied(self, model: nn.Module) -> None:
        tied = shared_parameters(model)
        for path, linear, name in self.weights():
            if id(linear.get_parameter(name)) in tied:
                raise NotReadyError(
                    f"Units can be cut out of layers that have weights of their own, but {path} "
                    "is tied to another: untie it, or choose a pruner of single weights."
                )

    def _check_heads_may_shrink(self) -> None:
        architecture = self.layers[0].architecture
        if HEAD_DIMENSIONS in self.granularity and not architecture.resizable_heads:
            raise ValueError(
                f"Heads that lose dimensions must keep their scale, but those of "
                f"{type(self._encoder).__name__} do not: leave `head_dimensions` out of "
                "`granularity`."
            )
        dropping = [kind for kind in (BLOCKS, LAYERS) if kind in self.granularity]
        if dropping and not architecture.droppable:
            raise ValueError(
                f"A layer that is dropped must leave nothing undone for the others, but those of "
                f"{type(self._encoder).__name__} share what the first computes: leave "
                f"`{'` and `'.join(dropping)}` out of `granularity`."
            )
        if LAYERS in self.granularity and len(self.layers) == 1:
            raise ValueError(
                f"Dropping layers needs more than one, but {type(self._encoder).__name__} has one "
                "(a shared layer is one): leave `layers` out of `granularity`."
            )


def _mask(parameter: Tensor, mask: Tensor, to_gradients: bool) -> None:
    target = parameter.grad if to_gradients else parameter.data
    if target is not None:
        target.mul_(mask)
