"""Shared parts of methods that score single weights: targets, masks, ranking."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from multiprune.arguments import check_is
from multiprune.budget.ledger import PARTS, ParameterLedger, owned_parameters, parts_of
from multiprune.pruning.by_task import top_shares
from multiprune.pruning.finite import refuse_nan
from multiprune.pruning.groups import Elements, Groups
from multiprune.pruning.input_norms import InputSquares
from multiprune.pruning.pruner import Pruner
from multiprune.pruning.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

    from multiprune.budget import Budget
    from multiprune.pruning.ready import Weight


class ElementWisePruner(Pruner):
    """Scores single weights, and keeps the best, ranked all together or in each tensor.

    ``parts`` names the ledger's rows that are in scope: by default the weights of the encoder's
    linear layers, and neither embeddings, biases, LayerNorm nor heads. With ``per_layer`` every
    tensor keeps the same fraction; otherwise all scores are ranked together. ``groups`` says which
    weights are kept or pruned together: by default each is on its own. With groups of many weights,
    each ranking keeps up to one group less than it may.
    """

    #: Kinds of buffers that a method keeps beside each target, the mask first.
    state: tuple[str, ...] = ("mask",)
    #: Those that are of each task where tasks are kept apart.
    apart: tuple[str, ...] = ()
    #: Whether ``scores`` asks for ``input_norms``, which are gathered while the model trains.
    reads_activations = False

    def __init__(
        self,
        *,
        budget: Budget,
        per_layer: bool = False,
        parts: Sequence[str] = ("encoder_linear",),
        groups: Groups | None = None,
    ) -> None:
        super().__init__(budget=budget)
        unknown = [part for part in parts if part not in PARTS]
        if unknown or not parts:
            raise ValueError(
                f"`parts` to prune must be some of {', '.join(PARTS)}, but are {list(parts)}."
            )
        if not isinstance(per_layer, bool):
            raise ValueError(f"`per_layer` must be true or false, but is {per_layer!r}.")
        self.per_layer = per_layer
        self.parts = tuple(parts)
        self.groups = groups or Elements()
        check_is(Groups, "Blocks(size=32)", groups=self.groups)
        #: What another pruner has taken away already, by path: those weights go first.
        self.allowed: Mapping[str, Tensor] = {}
        #: How many parameters it has taken that the budget counts, and that are no targets here.
        self.removed_elsewhere = 0
        self.targets: list[Target] = []
        self._inputs = InputSquares()
        self._final_masks: dict[str, Tensor] = {}

    @abstractmethod
    def scores(self) -> list[Float[Tensor, "..."]]:
        """Return the present scores of every target, in its shape: the largest survive."""

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        self._model, self._encoder = model, encoder
        inside = model if encoder is None else encoder
        owned = [one for one in owned_parameters(model, encoder) if one.part in self.parts]
        if self.by_task is not None:
            self.by_task.prepare(model)
        self.targets = [
            Target(one.path, one.module, one.name, self.by_task, self.apart) for one in owned
        ]
        if not self.targets:
            raise ValueError(
                f"{type(inside).__name__} has no parameters to prune in {', '.join(self.parts)}."
            )
        for target in self.targets:
            target.add("mask", torch.ones_like(target.weight, dtype=torch.bool))
            self.add_state(target)
        if self.reads_activations:
            self._inputs.watch(self.targets, inside)
        ledger = self.ledger()
        asked = self.budget.resolve(ledger)
        self._dense = sum(target.weight.numel() for target in self.targets)
        self._excess = ledger.dense_in(self.budget.of) - asked
        if self._excess and not self._counts_all_targets():
            raise ValueError(
                f"What is pruned must be what the budget counts, but `parts` are "
                f"{', '.join(self.parts)} and the budget counts {self.budget.of}."
            )
        shapes = [(target.path, target.weight.shape) for target in self.targets]
        self._spare = 0
        for ranked, share in self._rankings(self._dense - self._excess):
            self.groups.check(dict(shapes[ranked]), share)
            self._spare += self.groups.largest_group([shape for _, shape in shapes[ranked]]) - 1
        self.progress.attach(inside, self)

    def add_state(self, target: Target) -> None:
        """Add the buffers that a method needs besides the mask."""

    @override
    def weights(self) -> Iterable[Weight]:
        return [(target.path, target.module, target.name) for target in self.targets]

    @override
    def prune(self, amount: float) -> None:
        kept = self._dense - max(0, int(self._excess * amount) - self.removed_elsewhere)
        for target, mask in zip(self.targets, self.select(kept), strict=True):
            target.mask.copy_(mask)
        self.apply_masks()

    def select(self, kept: int) -> list[Bool[Tensor, "..."]]:
        """Rank the present scores; return masks that keep ``kept`` weights, as groups fit."""
        if kept == self._dense:
            return [torch.ones_like(target.mask) for target in self.targets]
        scores = [
            score.masked_fill(~self.allowed[target.path], -torch.inf)
            if target.path in self.allowed
            else score
            for score, target in zip(self.finite_scores(), self.targets, strict=True)
        ]
        return [
            mask
            for ranked, share in self._rankings(kept)
            for mask in self.groups.select(scores[ranked], share)
        ]

    def finite_scores(self) -> list[Float[Tensor, "..."]]:
        """Return the present scores, or raise a FloatingPointError if they or weights are NaN."""
        scores = self.scores() if self.by_task is None else self.by_task.joined(self._top_shares)
        pairs = list(zip(self.targets, scores, strict=True))
        refuse_nan("Weights", {one.path: [one.weight] for one in self.targets}, self._when())
        refuse_nan("Scores", {one.path: [score] for one, score in pairs}, self._when())
        return scores

    def _top_shares(self) -> list[Float[Tensor, "..."]]:
        """Return what the scores of one task are, as shares of those that they are ranked with."""
        scores = self.scores()
        ranked = [one for one, _ in self._rankings(self._dense)]
        return [share for one in ranked for share in top_shares(scores[one])]

    @override
    def check_ready(self) -> None:
        super().check_ready()
        self._inputs.check_ready(type(self).__name__)

    @override
    def forget_passes(self) -> None:
        self._inputs.forget(wanted=self.progress.goes_on)

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        self.mask_gradients()
        self._inputs.close_step()

    @override
    def after_step(self) -> None:
        self.apply_masks()
        if self.progress.goes_on:
            self._inputs.add()
        self.forget_passes()

    @override
    def skip_step(self) -> None:
        self.apply_masks()
        self.forget_passes()

    def input_norms(self, target: Target) -> Float[Tensor, "in"]:
        """Return the Euclidean norms of a target's inputs in training.

        For methods with ``reads_activations``, over all tokens of the steps that were taken while
        weights were pruned; a method that overrides what is called at a step must call this one's.
        """
        return self._inputs.norms(target)

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set every pruned weight to zero."""
        for target in self.targets:
            target.weight.mul_(target.mask)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Drop the gradients of pruned weights, so that neither clipping nor moments see them."""
        for target in self.targets:
            if target.gradient is not None:
                target.gradient.mul_(target.mask)

    @override
    def _make_permanent(self) -> None:
        self.apply_masks()
        self._final_masks = dict(self.masks())
        for target in self.targets:
            for kind in self.state:
                target.remove(kind)
        self._inputs.remove()
        self.targets = []

    @override
    def masks(self) -> Mapping[str, Tensor]:
        if not self.targets:
            return self._final_masks
        return {target.path: target.mask for target in self.targets}

    @override
    def ledger(self) -> ParameterLedger:
        return ParameterLedger.of(self._model, self._encoder, masks=self.masks())

    def _rankings(self, kept: int) -> list[tuple[slice, int]]:
        """Return which targets are ranked together, and how many of their weights may stay."""
        if not self.per_layer:
            return [(slice(None), kept)]
        shares = proportional_shares(kept, [target.weight.numel() for target in self.targets])
        return [(slice(index, index + 1), share) for index, share in enumerate(shares)]

    def _counts_all_targets(self) -> bool:
        return set(self.parts) <= set(parts_of(self.budget.of))


def proportional_shares(total: int, sizes: Sequence[int]) -> list[int]:
    """Split ``total`` in proportion to ``sizes``, in whole numbers that add up to it.

    Each share is rounded down, and what is left goes to the largest remainders, the first of
    equals first. No share is above its size if ``total`` is at most their sum.
    """
    whole = sum(sizes)
    shares = [total * size // whole for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(total * sizes[i] % whole), i))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares
