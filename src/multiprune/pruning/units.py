"""Shared parts of structured pruning: masks of units, budget, and removal.

Heads, dimensions of heads, neurons, layers and hidden dimensions go as a whole, the lowest scores
first, and what is gone stays gone.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from multiprune.budget.budget import reachable
from multiprune.budget.ledger import (
    ParameterLedger,
    refuse_computed,
    shared_parameters,
)
from multiprune.models.architectures import NEURONS, ROWS
from multiprune.models.hidden import hidden_states_of
from multiprune.models.saving import save_with_shapes
from multiprune.models.shrink import is_cut, shrink_layer
from multiprune.models.structure import along, layers_of
from multiprune.pruning.finite import compared_scores, refuse_nan
from multiprune.pruning.hidden_dimensions import HiddenDimensions
from multiprune.pruning.hidden_removal import remove_hidden
from multiprune.pruning.hidden_state import HIDDEN_STATE, HiddenState
from multiprune.pruning.layer_state import STATE, LayerState, layer_states_in, resize_on_load
from multiprune.pruning.prunable_sizes import PrunableSizes
from multiprune.pruning.pruner import Pruner
from multiprune.pruning.ready import NotReadyError, refuse_compiled
from multiprune.pruning.removal import (
    BLOCKS,
    GRANULARITIES,
    HEAD_DIMENSIONS,
    HIDDEN,
    LAYERS,
)
from multiprune.pruning.removal_order import remove_least_important
from multiprune.pruning.unit_costs import LayerCosts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch.optim import Optimizer

    from multiprune.budget import Budget
    from multiprune.models.hidden import HiddenStates
    from multiprune.models.structure import Layer
    from multiprune.pruning.importance import Scores
    from multiprune.pruning.ready import Weight
    from multiprune.pruning.removal import Kept


class UnitPruner(Pruner):
    """Removes the units with the lowest scores.

    Args:
        budget: how much may stay; embeddings, poolers and norms are touched by ``hidden`` only.
        granularity: kinds of what may go, some of ``heads``, ``head_dimensions`` (one of every head
            of a layer at a time), ``neurons``, ``blocks`` (attention or feed-forward network of a
            layer), ``layers``, ``hidden`` (a dimension of the hidden states: of embeddings, norms,
            heads and all layers at once). A block that stays keeps a head and a dimension, or a
            neuron; one that goes leaves its norms on the residual stream.
    """

    #: Whether it can remove hidden dimensions.
    knows_hidden = False

    def __init__(self, *, budget: Budget, granularity: Sequence[str]) -> None:
        super().__init__(budget=budget)
        known = (*GRANULARITIES, HIDDEN)
        if not granularity or any(kind not in known for kind in granularity):
            raise ValueError(
                f"`granularity` must be some of {', '.join(known)}, but is {list(granularity)}."
            )
        if HIDDEN in granularity and not self.knows_hidden:
            raise ValueError(
                f"{type(self).__name__} does not remove hidden dimensions: leave `hidden` out of "
                "`granularity`, or choose `structured`, `structured_magnitude` or `structured_l0`."
            )
        self.granularity = tuple(granularity)
        #: Those kinds that are of layers.
        self.unit_kinds = tuple(kind for kind in granularity if kind != HIDDEN)
        self.hidden: HiddenDimensions | None = None
        self.layers: list[Layer] = []
        self._final_masks: dict[str, Tensor] = {}

    @abstractmethod
    def scores(self) -> list[Scores]:
        """Return the present scores by layer, on the CPU: the lowest of all layers go first."""

    def new_state(self, layer: Layer) -> LayerState:
        """Return what the encoder is to carry of a layer."""
        return LayerState(layer)

    def new_hidden_state(self, parts: HiddenStates) -> HiddenState:
        """Return what the encoder is to carry of its hidden dimensions, if these may go."""
        return HiddenState(parts)

    def hidden_scores(self, kept: Sequence[Kept]) -> Float[Tensor, "hidden"]:
        """Return the scores of hidden dimensions, on the CPU, comparable with those of units."""
        raise NotImplementedError

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
        self._find_hidden(model)
        whole = None if self.hidden is None else self.hidden.whole
        self._sizes = PrunableSizes(self.layers, self.budget.of, self.unit_kinds, self.hidden)
        self._weights = LayerCosts(self.layers, "encoder_linear", whole)
        self._parameters = LayerCosts(self.layers, "encoder", whole)
        self._dense = self._dense_ledger(model, encoder)
        states = [self.new_state(layer) for layer in self.layers]
        kept = [state.kept() for state in states]
        dense = self._dense.dense_in(self.budget.of)
        self._fixed = dense - self._sizes.dense
        self._spare = self._sizes.spare(kept)
        least = self._fixed + self._sizes.least(kept)
        asked = self.budget.resolve(self._dense, least)
        self._excess = dense - asked
        if asked < least:
            raise ValueError(
                f"A budget of {asked:,} parameters ({self.budget.of}) must hold what pruning "
                f"{', '.join(self.granularity)} has to leave, but that is {least:,}. "
                f"{reachable(least, dense)}."
            )
        # Nothing is inserted into a model that is refused.
        carried = nn.ModuleList(states)
        if self.hidden is not None:
            carried.add_module(HIDDEN_STATE, self.hidden.state)
            self.hidden.state.attach()
        self._encoder.add_module(STATE, carried)
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
        scores = self.finite_scores(kept)
        if self.hidden is not None:
            mask, found = self.hidden.state.mask.cpu().clone(), self.hidden_scores(kept)
            refuse_nan("Scores", {"hidden dimensions": [found]}, self._when())
            size = self._sizes.dense - int(self._excess * amount)
            remove_hidden(found, mask, scores, kept, self._sizes, size=size)
            self.hidden.state.keep(mask)
        remove_least_important(
            scores,
            kept,
            self._sizes.costs,
            size=self.size_at(amount),
            granularity=self.unit_kinds,
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
        ranked = (compared_scores(*one, self.unit_kinds) for one in zip(scores, kept, strict=True))
        refuse_nan("Scores", dict(zip(paths, ranked, strict=True)), self._when())
        return scores

    def of_all_tasks(
        self, scores: Callable[[], list[Scores]], kept: Sequence[Kept]
    ) -> list[Scores]:
        """Return scores as they are, or joined from those of each task."""
        if self.by_task is None:
            return scores()
        return self.by_task.joined_units(scores, kept, self.unit_kinds)

    def size_at(self, amount: float) -> int:
        """Return what the units of layers may have, ``amount`` of the way from dense to the budget.

        That is with the hidden dimensions that are kept now.
        """
        besides = self._sizes.besides(self._sizes.left)
        return self._sizes.dense - besides - int(self._excess * amount)

    @override
    def shrink(self, optimizer: Optimizer | None = None) -> bool:
        return self._cut(optimizer)

    def _cut(self, optimizer: Optimizer | None = None) -> bool:
        if self.is_cut or self.ledger().kept == self._dense.dense:
            return False
        for layer, state in zip(self.layers, self.states, strict=True):
            shrink_layer(layer, state.units(), optimizer)
        if self.hidden is not None:
            self.hidden.state.cut(self._encoder, optimizer)
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
        if self.hidden is not None and self.hidden.state.is_cut:
            return True
        return any(is_cut(layer) for layer in self.layers)

    @override
    def _make_permanent(self) -> None:
        self._cut()
        if self.hidden is not None:
            self.hidden.state.detach()
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
        hidden = {} if self.hidden is None else {HIDDEN: self.hidden.state.mask}
        return hidden | {
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
        units, left = [state.kept() for state in self.states], self._sizes.left
        weights = self._weights.dense - self._weights.size(units, left)
        parameters = self._parameters.dense - self._parameters.size(units, left)
        kept["encoder_linear"] -= weights
        kept["encoder_other"] -= parameters - weights
        if self.hidden is not None:
            gone = self.hidden.whole - self.hidden.left
            for part, count in self.hidden.each.items():
                kept[part] -= gone * count
        return replace(self._dense, kept=kept)

    @property
    def states(self) -> list[LayerState]:
        """The state of each layer, which moves with the model."""
        return layer_states_in(self._encoder)

    def _find_hidden(self, model: nn.Module) -> None:
        if HIDDEN in self.granularity:
            parts = hidden_states_of(self._encoder, model)  # type: ignore[arg-type]
            state = self.new_hidden_state(parts)
            self.hidden = HiddenDimensions(model, self._encoder, self.layers, state)

    def _dense_ledger(self, model: nn.Module, encoder: nn.Module | None) -> ParameterLedger:
        weights, all_parameters = self._weights.dense, self._parameters.dense
        prunable = {"encoder_linear": weights, "encoder_other": all_parameters - weights}
        if self.hidden is not None:
            for part, count in self.hidden.each.items():
                prunable[part] = prunable.get(part, 0) + count * self.hidden.whole
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
        if self.hidden is not None and not to_gradients:
            self.hidden.state.zero()  # gradients are 0, as norms leave out what is not kept

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
