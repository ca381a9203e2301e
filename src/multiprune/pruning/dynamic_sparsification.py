"""Dynamic sparsification: train nested subnetworks of all sizes together."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.models.nested import RemovalOrder
from multiprune.models.resize import Resizable
from multiprune.pruning.layer_state import STATE
from multiprune.pruning.order_state import OrderState
from multiprune.pruning.ready import NotReadyError
from multiprune.pruning.removal import HEADS, NEURONS, Kept
from multiprune.pruning.removal_order import removal_order
from multiprune.pruning.sizes import EverySize, Parts
from multiprune.pruning.structured import Structured

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

    from multiprune.budget import Budget
    from multiprune.pruning.by_task import ByTask
    from multiprune.pruning.importance import Importance, Scores

#: Where the encoder keeps the order in which its units go.
ORDER = "removal_order"

#: What transformers sets in a module whose passes it runs again in backward.
CHECKPOINTED = "gradient_checkpointing"


class DynamicSparsification(Structured):
    """Trains every size from the whole encoder down to the budget, which is the smallest.

    After Dynamic Sparsification of Li et al. (2022), "Probing Structured Pruning on Multilingual
    Pre-trained Models", whose procedure is not published; this is the sandwich rule of Yu & Huang
    (2019), "Universally Slimmable Networks", section 3, on an order of units by importance. All
    units are ranked anew until the schedule ends, which decides how small the smallest part is;
    the first units of the ranking that fit a size are its part, so that each is inside all larger
    ones. A training step runs the whole encoder and ``parts_of_step``, at the cost of their sizes;
    ``multiprune.training.sandwich`` is what the parts learn.

    Of the paper's gates ("improved L0") a review says that they add a constraint on the sparsity
    and a loss of diversity to those of Louizos et al. (2018). No formula of either could be seen,
    so neither is here or elsewhere: ``StructuredL0`` has the constraint of Wang et al. (2020), and
    no loss of diversity.

    Weights are never zero, since larger parts need them. In evaluation mode, and wherever this
    pruner is asked what is kept, the encoder is its smallest part.

    Args:
        budget: of the smallest part.
        importance: what matters, measured in the gradients of all parts together.
        granularity: kinds of what may go.
        by_task: as of ``Structured``.
        sampled: how many sizes between the ends are trained in a step.
        temperature: of the softened answers of the whole encoder, which the parts learn.
        label_weight: of the labels for the parts, in [0, 1]; those answers have the rest. It is 0
            in Yu & Huang (2019), after many more steps than finetuning has.
        seed: of the sizes that are sampled.
    """

    knows_hidden = False  # parts of layers are lent, not of embeddings

    def __init__(
        self,
        *,
        budget: Budget,
        importance: Importance,
        granularity: Sequence[str] = (HEADS, NEURONS),
        by_task: ByTask | None = None,
        sampled: int = 1,
        temperature: float = 1.0,
        label_weight: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(
            budget=budget, importance=importance, granularity=granularity, by_task=by_task
        )
        check_number("sampled", sampled, at_least=0, whole=True)
        check_number("temperature", temperature, above=0)
        check_number("label_weight", label_weight, at_least=0, at_most=1)
        check_number("seed", seed, at_least=0, whole=True)
        self.sampled, self.seed = sampled, seed
        self.temperature, self.label_weight = temperature, label_weight
        #: The whole encoder, once the pruning is permanent; sizes of ``order`` are its own then.
        self.whole: PreTrainedModel | None = None
        self.order: RemovalOrder | None = None
        self._part: int | None = None
        #: Whether any part was run since the last optimizer step.
        self._has_run = False
        self._hooks: list[RemovableHandle] = []

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        inside = model if encoder is None else encoder
        if getattr(getattr(inside, "config", None), "is_encoder_decoder", False):
            raise ValueError(
                "Dynamic sparsification needs an encoder, but this model has a decoder."
            )
        super().prepare(model, encoder)
        state = OrderState(self.layers, self._whole(), self._sizes.dense)
        self._encoder.add_module(ORDER, state)
        self._resizable = Resizable(self.layers)
        self._hooks = [
            self._encoder.register_forward_pre_hook(self._lend),
            self._encoder.register_forward_hook(self._restore, always_call=True),
            self._encoder.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]
                self._forget_order
            ),
        ]

    @override
    def prune(self, amount: float) -> None:
        if self.is_cut:
            return
        order = removal_order(
            self.finite_scores(self._whole()),
            self._whole(),
            self._sizes.costs,
            size=self.size_at(amount),
            granularity=self.granularity,
            final=self.size_at(1.0),
        )
        self._order_state().write(order)
        self.order = order
        for state, layer, kept in zip(self.states, order.layers, self._whole(), strict=True):
            kept.leave(layer, order.smallest)
            state.keep(kept)

    @override
    def after_step(self) -> None:
        super().after_step()
        self._has_run = False

    @override
    def scores(self) -> list[Scores]:
        # As if nothing had gone, which is so.
        return self.scores_among(self._whole())

    @override
    def shrink(self, optimizer: Optimizer | None = None) -> bool:
        return False  # the larger parts are still trained

    @override
    def _make_permanent(self) -> None:
        order = self.current_order()
        for hook in self._hooks:
            hook.remove()
        delattr(self._encoder, ORDER)
        whole: Any = copy.deepcopy(self._encoder)
        delattr(whole, STATE)
        self.whole = whole
        super()._make_permanent()
        self.order = RemovalOrder(order.layers, order.sizes + self._fixed)

    @override
    def sizes(self) -> EverySize | None:
        return None if self.whole is None else EverySize(self.whole, self.current_order())

    @override
    def trained_parts(self) -> Parts:
        return self

    def parts_of_step(self, step: int) -> list[int]:
        """Return which parts a training step runs besides the whole: removals, smallest part first.

        They depend on the seed and the number of the step alone.
        """
        order = self.current_order()
        smallest, whole = int(order.sizes[-1]), int(order.sizes[0])
        if smallest == whole:
            return []
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        drawn = torch.rand(self.sampled, generator=generator, dtype=torch.float64)
        sizes = [int(smallest + one * (whole - smallest)) for one in drawn.tolist()]
        return [order.smallest, *(order.removals_for(size) for size in sizes)]

    @contextmanager
    def part(self, removals: int) -> Iterator[None]:
        """Let the encoder be what is left after so many removals, whatever mode it is in."""
        self._refuse_checkpointing()
        before, self._part, self._has_run = self._part, removals, True
        try:
            yield
        finally:
            self._part = before

    @override
    def check_ready(self) -> None:
        super().check_ready()
        self._refuse_checkpointing()

    def _refuse_checkpointing(self) -> None:
        if any(getattr(module, CHECKPOINTED, False) for module in self._encoder.modules()):
            raise NotReadyError(
                "Gradient checkpointing is not supported with dynamic sparsification, which "
                "trains parts of layers: disable it."
            )

    @override
    def check_passes(self) -> None:
        if self.current_order().smallest and not self._has_run:
            raise RuntimeError(
                "Each training step must run parts of the encoder, within `part(removals)` for "
                "each of `parts_of_step(step)`, but none was run since the last step."
            )

    def current_order(self) -> RemovalOrder:
        """Return the present order of removal."""
        if self.order is None:
            self.order = self._order_state().read()
        return self.order

    @override
    def _apply_masks(self, *, to_gradients: bool = False) -> None:
        pass  # the larger parts need what the smallest does not

    def _lend(self, encoder: nn.Module, _: Any) -> None:
        order = self.current_order()
        removals = self._part
        if removals is None:
            removals = 0 if encoder.training else order.smallest
        if removals:
            self._resizable.resize(order.units(removals))

    def _restore(self, *_: Any) -> None:
        self._resizable.restore()

    def _forget_order(self, *_: Any) -> None:
        self.order = None

    def _order_state(self) -> OrderState:
        state = self._encoder.get_submodule(ORDER)
        assert isinstance(state, OrderState)
        return state

    def _whole(self) -> list[Kept]:
        """Return masks of which nothing has gone."""
        kept = [state.kept() for state in self.states]
        return [Kept(*(torch.ones_like(mask) for mask in vars(one).values())) for one in kept]
