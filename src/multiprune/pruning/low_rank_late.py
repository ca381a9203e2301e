"""Rank pruning of a trained dense model, weighted by the inputs of its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.models.late_low_rank import LateLowRankLinear
from multiprune.models.low_rank import balanced_factors
from multiprune.pruning.decomposition import (
    Decomposition,
    closing_prices,
    decompose,
    input_root,
    row_weights,
    truncate,
)
from multiprune.pruning.finite import refuse_nan
from multiprune.pruning.known_value import KnownValue
from multiprune.pruning.ranks import RankPruner
from multiprune.pruning.second_moments import MOMENT, SecondMoments, moment_of

if TYPE_CHECKING:
    from torch import nn

    from multiprune.budget import Budget
    from multiprune.pruning.ranks import RankTarget

#: The buffer of a layer that holds the sums over rows of the mean of squared gradients.
FISHER = "output_fisher"


class LowRankLate(RankPruner):
    """Trains dense matrices, and once cuts them to factors, where that should raise the loss least.

    At the end of the schedule each matrix is decomposed (``decompose``): ``weight_rows`` weighs its
    outputs by squared gradients, ``whiten`` its inputs by how they vary together. The ranks of all
    matrices compete by the loss that they save a parameter. A matrix that factors would not make
    smaller stays dense. The rest of the training heals the factors.

    ``decay`` is what the running mean of squared gradients keeps at each step. Inputs are read in
    the last ``moment_steps`` steps before the cut. ``damping`` is added to the weights of outputs
    and inputs, as a fraction of their mean.
    """

    is_gradual = False
    layer_class = LateLowRankLinear

    def __init__(
        self,
        *,
        budget: Budget,
        whiten: bool = True,
        weight_rows: bool = True,
        decay: float = 0.99,
        moment_steps: int = 64,
        damping: float = 0.01,
    ) -> None:
        super().__init__(budget=budget)
        for name, value in {"whiten": whiten, "weight_rows": weight_rows}.items():
            if not isinstance(value, bool):
                raise ValueError(f"`{name}` must be true or false, but is {value!r}.")
        check_number("decay", decay, at_least=0, below=1)
        check_number("moment_steps", moment_steps, at_least=1, whole=True)
        # Sums in float32 leave a moment's smallest directions in the dark.
        check_number("damping", damping, at_least=1e-4)
        self.whiten, self.weight_rows = whiten, weight_rows
        self.decay, self.moment_steps, self.damping = decay, moment_steps, damping
        self._all_open: list[KnownValue] = []
        self._decompositions: list[Decomposition] = []
        self._moments: SecondMoments | None = None

    @property
    def reads_gradients(self) -> bool:  # type: ignore[override]
        """Whether outputs are weighted by gradients."""
        return self.weight_rows

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        super().prepare(model, encoder)
        for target in self.targets:
            weight = target.layer.up.weight
            precision = torch.promote_types(weight.dtype, torch.float32)
            if self.weight_rows:
                zeros = weight.new_zeros(len(weight), dtype=precision)
                target.layer.register_buffer(FISHER, zeros)
            known = KnownValue()
            known.note(target.mask, True)
            self._all_open.append(known)
        if self.whiten:
            self._moments = SecondMoments(self._dense_layers(), self.progress, self.moment_steps)

    @override
    def check_ready(self) -> None:
        super().check_ready()
        if self._moments is not None:
            self._moments.check_ready(type(self).__name__)

    @override
    def forget_passes(self) -> None:
        if self._moments is not None:
            self._moments.forget()

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        if self._moments is not None:
            self._moments.close_step()

    @override
    def after_step(self) -> None:
        super().after_step()
        if self.weight_rows and self.progress.goes_on:
            self._read_gradients()
        if self._moments is not None:
            self._moments.add()

    @override
    def skip_step(self) -> None:
        self.forget_passes()

    @torch.no_grad()
    def _read_gradients(self) -> None:
        for layer in self._dense_layers():
            fisher, gradient = layer.get_buffer(FISHER), layer.up.weight.grad
            fisher.mul_(self.decay)
            if gradient is not None:
                norms = torch.linalg.vector_norm(gradient, dim=1, dtype=fisher.dtype)
                fisher.addcmul_(norms, norms, value=1 - self.decay)

    @override
    @torch.no_grad()
    def prune(self, amount: float) -> None:
        if amount < 1 or not self._excess or self._kept < self._dense:
            return
        masks = self.select(self._excess)
        for target, mask, found in zip(self.targets, masks, self._decompositions, strict=True):
            target.mask.copy_(mask)
            if not mask.all():
                weight = target.layer.up.weight
                kept = found.vectors[:, mask]
                weight.copy_(truncate(weight, kept, self._rows(target)))
        self._decompositions = []
        if self._moments is not None:
            self._moments.clear()

    @override
    @torch.no_grad()
    def scores(self) -> list[Float[Tensor, "_"]]:
        """Decompose all matrices, and return what their ranks are worth for each parameter."""
        statistics = {target.path: self._statistics(target) for target in self.targets}
        refuse_nan("Statistics of inputs or gradients", statistics, self._when())
        self._decompositions = [
            decompose(target.layer.up.weight, self._rows(target), self._root(target))
            for target in self.targets
        ]
        scales = torch.stack([self._scale(target) for target in self.targets])
        scales = torch.where(scales.any(), scales, 1.0)  # as where no step was taken
        return [
            closing_prices(found.squares * scale, target.cost, target.dense)
            for target, found, scale in zip(self.targets, self._decompositions, scales, strict=True)
        ]

    def _rows(self, target: RankTarget) -> Tensor | None:
        if not self.weight_rows:
            return None
        return row_weights(target.layer.get_buffer(FISHER), self.damping)

    def _root(self, target: RankTarget) -> Tensor | None:
        return input_root(moment_of(target.layer), self.damping) if self.whiten else None

    def _scale(self, target: RankTarget) -> Float[Tensor, ""]:
        """Return what an entry of a matrix weighs on average, beside those of other matrices."""
        if self.weight_rows:
            # A gradient has the norm of the inputs in it already.
            return target.layer.get_buffer(FISHER).double().sum() / target.dense
        if self.whiten:
            return moment_of(target.layer).double().diagonal().mean()
        return target.layer.up.weight.new_ones((), dtype=torch.float64)

    def _statistics(self, target: RankTarget) -> list[Tensor]:
        names = (FISHER,) * self.weight_rows + (MOMENT,) * self.whiten
        return [target.layer.get_buffer(name) for name in names]

    @override
    def mask_gradients(self) -> None:
        pass  # a dense matrix is brought back to its ranks after the step, and factors are cut

    @override
    @torch.no_grad()
    def apply_masks(self) -> None:
        """Bring matrices that were pruned, and not cut yet, back to the ranks that they keep."""
        for target, known in zip(self.targets, self._all_open, strict=True):
            if not target.is_cut and not known.of(target.mask, _all_open):
                up, down = balanced_factors(target.layer.up.weight, int(target.mask.sum()))
                target.layer.up.weight.copy_(up @ down)

    @override
    def _make_permanent(self) -> None:
        if self._moments is not None:
            self._moments.detach()
        super()._make_permanent()

    def _dense_layers(self) -> list[LateLowRankLinear]:
        layers = [target.layer for target in self.targets]
        return [one for one in layers if isinstance(one, LateLowRankLinear) and one.is_dense]


def _all_open(mask: Tensor) -> bool:
    return bool(mask.all())
