"""Rank pruning: which ranks of the factorised layers survive, by learned gates or by their loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.pruning.by_task import checked, top_shares
from multiprune.pruning.layer_gates import GateVector, LayerGates
from multiprune.pruning.ranks import RankPruner

if TYPE_CHECKING:
    from torch import nn

    from multiprune.budget import Budget
    from multiprune.pruning.by_task import ByTask
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
    ) -> None:
        super().__init__(budget=budget)
        self.gates = LayerGates(
            drop_rate=drop_rate,
            learning_rate=gate_learning_rate,
            multiplier_learning_rate=multiplier_learning_rate,
            seed=seed,
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
        """Multiply the gates to evaluate with into the layers, and leave gates of 1."""
        if not self.gates.learning:
            return
        self.gates.stop()
        for target, gate in zip(self.targets, self.gates.estimated(), strict=True):
            target.layer.up.weight.mul_(gate)
            target.layer.set_gates(torch.ones_like(gate), torch.ones_like(gate))


class LowRankGradual(RankPruner):
    """Closes first the ranks whose loss is least missed, to first order, a few at a time.

    Closing rank ``j`` changes the loss by ``-sum_i U[i, j] dL/dU[i, j]`` to first order (the
    criterion of Molchanov et al. (2017), "Pruning Convolutional Neural Networks for Resource
    Efficient Inference", for the singular values of a matrix instead of feature maps). Its absolute
    value is averaged over steps, ``score = smoothing * score + (1 - smoothing) * value``.
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
            return self._gathered(self.targets)
        return self.by_task.joined(self._top_shares)

    def _top_shares(self) -> list[Tensor]:
        scores = self._gathered(self.targets)
        masks = [target.mask for target in self.targets]
        return top_shares(scores, [one[mask] for one, mask in zip(scores, masks, strict=True)])

    def _gathered(self, targets: Sequence[RankTarget]) -> list[Tensor]:
        """Return what is averaged, of the task that is looked at where tasks are apart."""
        held = [target.layer.get_buffer("ranks_importance") for target in targets]
        return held if self.by_task is None else [one[self.by_task.current] for one in held]

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
