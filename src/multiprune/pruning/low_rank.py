"""Rank pruning during training: ranks selected by learned gates or by their loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.pruning.by_task import checked, top_shares
from multiprune.pruning.layer_gates import GateVector, LayerGates
from multiprune.pruning.ranks import RankPruner
from multiprune.pruning.select import close_smallest

if TYPE_CHECKING:
    from torch import nn

    from multiprune.budget import Budget
    from multiprune.pruning.by_task import ByTask
    from multiprune.pruning.evaluation_gates import EvaluationGates
    from multiprune.pruning.ranks import RankTarget


class LowRankL0(RankPruner):
    """Learns a random gate for each rank, under a constraint on the expected size.

    FLOP of Wang, Wohlwend & Lei (2020), "Structured Pruning of Large Language Models", from a
    pretrained model: ``W = U diag(z) V`` with hard concrete gates ``z``. Until the first ``prune``
    above 0 the gates are 1. Then they learn, while the target of the expected size goes from where
    it starts, at the factors' full size, to the budget; masks stay whole meanwhile. At the end the
    ranks with the largest ``log_alpha`` survive, exactly as many as the budget has room for, their
    gates are multiplied into ``U``, and training goes on without gates.

    Both learning rates are those of Adam, and follow the schedule of the weights'.
    ``evaluation_gates`` says what gates are without noise: by default those of Louizos et al., with
    ``FlopGates`` those of the authors' code.
    """

    is_gradual = False

    def __init__(
        self,
        *,
        budget: Budget,
        drop_rate: float,
        gate_learning_rate: float,
        multiplier_learning_rate: float,
        seed: int = 0,
        evaluation_gates: EvaluationGates | None = None,
    ) -> None:
        super().__init__(budget=budget)
        self.gates = LayerGates(
            drop_rate=drop_rate,
            learning_rate=gate_learning_rate,
            multiplier_learning_rate=multiplier_learning_rate,
            seed=seed,
            evaluation=evaluation_gates,
        )

    @override
    def scores(self) -> list[Float[Tensor, "_"]]:
        return self.gates.log_alpha()

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        super().prepare(model, encoder)
        for target in self.targets:
            precision = torch.promote_types(target.layer.up.weight.dtype, torch.float32)
            ones = torch.ones_like(target.mask, dtype=precision)
            target.layer.set_gates(ones, ones)
        vectors = [GateVector(one.layer, "", [one.layer.up]) for one in self.targets]
        self.gates.put_into(model if encoder is None else encoder, vectors, self._expected_size)

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        super().before_step(learning_rate_scale)
        self.gates.read_gradients(learning_rate_scale)

    @override
    def after_step(self) -> None:
        super().after_step()
        self.gates.take_step()

    @override
    def prune(self, amount: float) -> None:
        if amount <= 0 or self._kept < self._dense or not self._excess:
            return
        if amount >= 1:
            super().prune(amount)
            self._fold_gates()
            return
        self.gates.aim(amount, 1 - self._excess / self._dense)

    def _expected_size(self, probabilities: Sequence[Float[Tensor, "_"]]) -> Float[Tensor, ""]:
        """Return the expected size, as a fraction of the dense one."""
        sizes = zip(probabilities, self.targets, strict=True)
        return torch.stack([one.sum() * (it.cost / self._dense) for one, it in sizes]).sum()

    @override
    def _make_permanent(self) -> None:
        self._fold_gates()
        super()._make_permanent()
        self.gates.remove()

    @torch.no_grad()
    def _fold_gates(self) -> None:
        """Multiply the gates of what is kept into the layers, and leave gates of 1."""
        if not self.gates.learning:
            return
        self.gates.stop()
        for target, gate in zip(self.targets, self.gates.folded(), strict=True):
            target.layer.up.weight.mul_(gate)
            target.layer.set_gates(torch.ones_like(gate), torch.ones_like(gate))


class LowRankGradual(RankPruner):
    """Closes first the ranks whose loss is least missed, to first order, a few at a time.

    Closing rank ``j`` changes the loss by ``-sum_i U[i, j] dL/dU[i, j]`` to first order (the
    criterion of Molchanov et al. (2017), "Pruning Convolutional Neural Networks for Resource
    Efficient Inference", for the singular values of a matrix instead of feature maps). Its absolute
    value is averaged over steps, ``score = smoothing * score + (1 - smoothing) * value``; what
    is compared is that score for each parameter.

    Ranks close in all matrices from the start. At full rank factors are larger than the dense
    matrix, and closing ranks saves nothing until they are as small: all matrices go down to there
    at one pace, in the time that their sizes as factors give this part of the way. From there on
    ranks of all matrices compete. So all matrices end as factors, unless the budget leaves nearly
    everything.
    """

    def __init__(self, *, budget: Budget, smoothing: float, by_task: ByTask | None = None) -> None:
        super().__init__(budget=budget)
        self.by_task = checked(by_task)
        check_number("smoothing", smoothing, at_least=0, below=1)
        self.smoothing = smoothing
        # What closing each rank would change, from ``before_step`` to ``after_step``.
        self._changes: list[Tensor] = []

    @override
    def scores(self) -> list[Float[Tensor, "_"]]:
        if self.by_task is None:
            return self._by_parameter()
        # Minus shares, of which each task has at most 1: not below 0, as other scores.
        return [one + len(self.by_task.tasks) for one in self.by_task.joined(self._top_shares)]

    def _top_shares(self) -> list[Tensor]:
        scores = self._by_parameter()
        masks = [target.mask for target in self.targets]
        return top_shares(scores, [one[mask] for one, mask in zip(scores, masks, strict=True)])

    def _by_parameter(self) -> list[Tensor]:
        gathered = zip(self._gathered(self.targets), self.targets, strict=True)
        return [importance / target.cost for importance, target in gathered]

    def _gathered(self, targets: Sequence[RankTarget]) -> list[Tensor]:
        """Return what is averaged, of the task that is looked at where tasks are apart."""
        held = [target.layer.get_buffer("ranks_importance") for target in targets]
        return held if self.by_task is None else [one[self.by_task.current] for one in held]

    @override
    def select(self, needed: int) -> list[Bool[Tensor, "_"]]:
        whole = [target.mask.numel() * target.cost for target in self.targets]
        room = sum(target.layer.breakeven * target.cost for target in self.targets)
        budget = self._dense - self._excess
        if not self._excess or budget > room:
            return super().select(needed)
        scores = [
            in_order_of_closing(score, target.mask.numel() - target.layer.breakeven)
            for score, target in zip(self.checked_scores(), self.targets, strict=True)
        ]
        # Closing counts from full rank, so the way from there to the budget is longer.
        final = sum(whole) - budget
        due = final * needed // self._excess
        done = sum(whole) - sum(int(one.mask.count_nonzero()) * one.cost for one in self.targets)
        savings = [torch.full((target.mask.numel() - 1,), target.cost) for target in self.targets]
        return close_smallest(scores, savings, max(due, done), final=max(final, done))

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        super().prepare(model, encoder)
        for target in self.targets:
            zeros = torch.zeros_like(target.layer.down.weight[:, 0])
            gathered = zeros if self.by_task is None else self.by_task.apart(zeros)
            target.layer.register_buffer("ranks_importance", gathered)

    @override
    @torch.no_grad()
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        weights = [target.layer.up.weight for target in self._uncut()]
        self._changes = [first_order_change(weight, weight.grad) for weight in weights]
        super().before_step(learning_rate_scale)

    @override
    @torch.no_grad()
    def after_step(self) -> None:
        for gathered, change in zip(self._gathered(self._uncut()), self._changes, strict=True):
            gathered.lerp_(change.abs(), 1 - self.smoothing)
        super().after_step()


def first_order_change(
    up: Float[Tensor, "out ranks"], gradient: Float[Tensor, "out ranks"] | None
) -> Float[Tensor, "ranks"]:
    """Return by how much the loss would fall, to first order, if a rank were closed.

    ``up`` is the factor behind the ranks; without a gradient the loss does not depend on it.
    """
    return up.new_zeros(up.shape[1]) if gradient is None else (up * gradient).sum(0)


def in_order_of_closing(score: Float[Tensor, "ranks"], first: int) -> Float[Tensor, "ranks"]:
    """Return scores of the ranks of one matrix with those of the ``first`` smallest below 0.

    These go from -1 up to 0 in equal steps, in the order of the scores: so of several matrices each
    has the same share of them among the smallest. Scores are at least 0, or -inf of ranks that are
    closed, and stay that.
    """
    order = score.argsort(stable=True)[:first]
    placed = score.clone()
    placed[order] = torch.arange(-first, 0, dtype=score.dtype, device=score.device) / first
    return placed.masked_fill(score.isneginf(), -torch.inf)
