"""Shared parts of rank pruning: factors, masks, ranking against the budget.

Every linear layer of the encoder is factorised at full rank, ``W = U V``. A rank, a column of ``U``
with a row of ``V``, costs ``in + out`` parameters. Since full rank costs more than the dense
matrix, a matrix counts the smaller of the two: above ``in * out / (in + out)`` ranks it keeps all
of them, and becomes dense again in the end. Ranks of all matrices are ranked together.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from typing_extensions import override

from multiprune.budget.budget import reachable
from multiprune.budget.ledger import ParameterLedger, owned_parameters
from multiprune.models.low_rank import LowRankLinear
from multiprune.models.saving import save_with_shapes
from multiprune.pruning.finite import refuse_nan
from multiprune.pruning.pruner import Pruner
from multiprune.pruning.ready import refuse_compiled
from multiprune.pruning.select import close_smallest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch.optim import Optimizer

    from multiprune.budget import Budget
    from multiprune.pruning.ready import Weight


@dataclass(frozen=True)
class RankTarget:
    """A factorised layer, and the mask of its ranks, a buffer that keeps its full size."""

    path: str
    layer: LowRankLinear

    @property
    def mask(self) -> Tensor:
        """Which ranks of the first factorisation are kept: boolean."""
        return self.layer.get_buffer("ranks_mask")

    @property
    def cost(self) -> int:
        """The parameters of one rank."""
        return self.layer.in_features + self.layer.out_features

    @property
    def dense(self) -> int:
        """The parameters of the dense matrix."""
        return self.layer.in_features * self.layer.out_features

    @property
    def kept(self) -> int:
        """The parameters that the matrix counts now."""
        return min(int(self.mask.count_nonzero()) * self.cost, self.dense)

    @property
    def stays_dense(self) -> bool:
        """Whether factors would be no smaller than the dense matrix."""
        return self.kept == self.dense

    @property
    def is_cut(self) -> bool:
        """Whether closed ranks are no longer in the layer, rather than zero."""
        return self.layer.rank != self.mask.numel()

    def savings(self) -> Int[Tensor, "closings"]:
        """Return what the first, second, ... closing of a rank saves; the last rank stays."""
        ranks = torch.arange(self.mask.numel(), 0, -1)
        return -(ranks * self.cost).clamp(max=self.dense).diff()

    def factors(self) -> tuple[Float[Tensor, "out ranks"], Float[Tensor, "in ranks"]]:
        """Return views on the two factors."""
        return self.layer.up.weight, self.layer.down.weight.T


class RankPruner(Pruner):
    """Closes the ranks with the smallest scores; a closed rank does not return.

    In scope are the weights of the encoder's linear layers that a factorisation can make smaller
    and that are not tied to others. One rank of each stays, the best, so that no layer is cut off.
    """

    replaces_layers = True
    #: What takes the place of a linear layer.
    layer_class = LowRankLinear

    def __init__(self, *, budget: Budget) -> None:
        super().__init__(budget=budget)
        self.targets: list[RankTarget] = []
        self._final_masks: dict[str, Tensor] = {}

    @abstractmethod
    def scores(self) -> list[Float[Tensor, "_"]]:
        """Return the present scores of every target's ranks: the largest survive."""

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        inside = model if encoder is None else encoder
        refuse_compiled(inside)
        if self.by_task is not None:
            self.by_task.prepare(model)
        self._model = model
        self._ledger = ParameterLedger.of(model, encoder)
        for path, linear in _linear_layers(model, encoder).items():
            layer = self.layer_class.from_linear(linear)
            mask = torch.ones(layer.rank, dtype=torch.bool, device=linear.weight.device)
            layer.register_buffer("ranks_mask", mask)
            model.set_submodule(path, layer)
            self.targets.append(RankTarget(path, layer))
        if not self.targets:
            raise ValueError(
                f"A pruner of ranks needs linear layers to factorise, but "
                f"{type(inside).__name__} has none that this would make smaller."
            )
        self._dense = sum(target.dense for target in self.targets)
        ledger = self.ledger()
        dense = ledger.dense_in(self.budget.of)
        self._spare = max(target.cost for target in self.targets) - 1
        fewest = sum(target.cost for target in self.targets)
        least = ledger.fixed_in(self.budget.of) + fewest
        self._excess = dense - self.budget.resolve(ledger, least)
        if self._dense - self._excess < fewest:
            raise ValueError(
                f"A budget must leave each of {len(self.targets)} factorised layers one rank, "
                f"{fewest:,} parameters, but leaves them {self._dense - self._excess:,}. "
                f"{reachable(least, dense)}."
            )
        self.progress.attach(inside, self)
        save_with_shapes(model, inside)

    @override
    def weights(self) -> Iterable[Weight]:
        for target in self.targets:
            for name in ("up", "down"):
                yield f"{target.path}.{name}.weight", target.layer.get_submodule(name), "weight"

    @override
    def prune(self, amount: float) -> None:
        for target, mask in zip(self.targets, self.select(int(self._excess * amount)), strict=True):
            target.mask.copy_(mask)
        self.apply_masks()

    def select(self, needed: int) -> list[Bool[Tensor, "_"]]:
        """Return masks that save ``needed`` parameters, or all that is saved already."""
        scores = self.checked_scores()
        savings = [target.savings() for target in self.targets]
        done = self._dense - self._kept
        masks = close_smallest(scores, savings, max(needed, done), final=max(self._excess, done))
        pays = [
            int(mask.count_nonzero()) * target.cost < target.dense
            for target, mask in zip(self.targets, masks, strict=True)
        ]
        return [
            mask if smaller else torch.ones_like(mask)
            for mask, smaller in zip(masks, pays, strict=True)
        ]

    def checked_scores(self) -> list[Float[Tensor, "_"]]:
        """Return the present scores, of closed ranks the lowest, or raise if anything is NaN."""
        layers = {target.path: target.layer for target in self.targets}
        weights = {path: [one.up.weight, one.down.weight] for path, one in layers.items()}
        refuse_nan("Weights", weights, self._when())
        pairs = list(zip(self.targets, self.scores(), strict=True))
        open_ranks = {target.path: [one[target.mask]] for target, one in pairs}
        refuse_nan("Scores", open_ranks, self._when())
        return [score.masked_fill(~target.mask, -torch.inf) for target, score in pairs]

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        self.mask_gradients()

    @override
    def after_step(self) -> None:
        self.apply_masks()

    @override
    def skip_step(self) -> None:
        pass  # only gradients were changed

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set the factors of every closed rank to zero."""
        for target in self._uncut():
            for factor in target.factors():
                factor.mul_(target.mask)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Drop the gradients of closed ranks, so that neither clipping nor moments see them."""
        for target in self._uncut():
            up, down = target.layer.up.weight.grad, target.layer.down.weight.grad
            if up is not None and down is not None:
                up.mul_(target.mask)
                down.T.mul_(target.mask)

    @override
    def shrink(self, optimizer: Optimizer | None = None) -> bool:
        if self._kept > self._dense - self._excess:
            return False
        return self._cut(optimizer)

    @override
    def _make_permanent(self) -> None:
        self.apply_masks()
        self._cut(None)
        self._ledger = self.ledger()
        self._final_masks = dict(self.masks())
        for target in self.targets:
            layer = target.layer
            shipped = layer.merged() if target.stays_dense else layer.factored()
            self._model.set_submodule(target.path, shipped)
        self.targets = []

    @override
    def masks(self) -> Mapping[str, Tensor]:
        if not self.targets:
            return self._final_masks
        return {f"{target.path}.ranks": target.mask for target in self.targets}

    @override
    def ledger(self) -> ParameterLedger:
        if not self.targets:
            return self._ledger
        dense, part = self._ledger.dense, "encoder_linear"
        kept = dense[part] - self._dense + self._kept
        return replace(self._ledger, kept={**dense, part: kept}, prunable={part: self._dense})

    @property
    def _kept(self) -> int:
        return sum(target.kept for target in self.targets)

    def _uncut(self) -> list[RankTarget]:
        return [target for target in self.targets if not target.is_cut]

    def _cut(self, optimizer: Optimizer | None) -> bool:
        closed = [target for target in self._uncut() if not target.mask.all()]
        for target in closed:
            target.layer.keep_ranks(target.mask.nonzero()[:, 0], optimizer)
        return bool(closed)


def _linear_layers(model: nn.Module, encoder: nn.Module | None) -> dict[str, nn.Linear]:
    """Return the encoder's linear layers that factors can replace, by their paths in ``model``."""
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    found = {}
    for owned in owned_parameters(model, encoder):
        path, _, _ = owned.path.rpartition(".")
        # A subclass may use its weight in ways of its own.
        if owned.part != "encoder_linear" or not path or type(owned.module) is not nn.Linear:
            continue
        rows, columns = owned.parameter.shape
        if uses[id(owned.parameter)] == 1 and rows + columns < rows * columns:
            found[path] = owned.module
    return found
