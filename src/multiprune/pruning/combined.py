"""Structured pruning followed by pruning of single weights, in one run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from typing_extensions import override

from multiprune.budget import CountBudget
from multiprune.budget.ledger import parts_of
from multiprune.pruning.pruner import Pruner
from multiprune.pruning.removal import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from multiprune.budget import Budget, ParameterLedger
    from multiprune.pruning.element_wise import ElementWisePruner
    from multiprune.pruning.units import UnitPruner


class Combined(Pruner):
    """Prunes structures, then single weights; each in its half of the pruning phase.

    Args:
        budget: what is left at the end.
        structured: makes the first pruner from a budget.
        element_wise: makes the second pruner from a budget.
        structured_budget: what the first leaves. By default the two remove the same fraction: for
            a density ``d`` at the end, the first stops at the square root of ``d``.
    """

    def __init__(
        self,
        *,
        budget: Budget,
        structured: Callable[..., UnitPruner],
        element_wise: Callable[..., ElementWisePruner],
        structured_budget: Budget | None = None,
    ) -> None:
        super().__init__(budget=budget)
        if structured_budget is not None and structured_budget.of != budget.of:
            raise ValueError(
                f"Both budgets must have the same `of`, but have {structured_budget.of} and "
                f"{budget.of}."
            )
        self._make_structured, self._structured_budget = structured, structured_budget
        self.element_wise = element_wise(budget=budget)

    @override
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        self.element_wise.prepare(model, encoder)
        dense = self.element_wise.ledger().dense_in(self.budget.of)
        asked = dense - self.element_wise.excess
        between = CountBudget(count=round((asked * dense) ** 0.5), of=self.budget.of)
        self.structured = self._make_structured(budget=self._structured_budget or between)
        if self.structured.trained_parts() is not None:
            raise ValueError(
                "Single weights can be pruned of a network of one size, but dynamic sparsification "
                "trains many: give `structured` another pruner."
            )
        if HIDDEN in self.structured.granularity:
            raise ValueError(
                "Single weights cannot be pruned of what hidden dimensions leave: leave `hidden` "
                "out of `structured.granularity`."
            )
        self.structured.prepare(model, encoder)
        self.progress = self.structured.progress
        self.progress.belong_to(self)
        self.element_wise.progress.detach()
        self.element_wise.progress = self.progress
        if self.structured.excess > self.element_wise.excess:
            raise ValueError(
                f"The structured budget must not be below the final one, but leaves "
                f"{dense - self.structured.excess:,} of {dense:,} and the final one {asked:,}."
            )

    @override
    def check_ready(self) -> None:
        self.structured.check_ready()
        self.element_wise.check_ready()

    @override
    def note_tasks(self, tasks: Iterable[str]) -> None:
        self.structured.note_tasks(tasks)
        self.element_wise.note_tasks(tasks)

    @override
    def forget_passes(self) -> None:
        self.structured.forget_passes()
        self.element_wise.forget_passes()

    @override
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        self.structured.before_step(learning_rate_scale)
        self.element_wise.before_step(learning_rate_scale)

    @override
    def after_step(self) -> None:
        self.structured.after_step()
        self.element_wise.after_step()

    @override
    def skip_step(self) -> None:
        self.structured.skip_step()
        self.element_wise.skip_step()

    @override
    def prune(self, amount: float) -> None:
        if self.structured.is_cut:
            return
        self.structured.prune(min(1.0, 2 * amount))
        paths = {id(target.module): target.path for target in self.element_wise.targets}
        self.element_wise.allowed = {
            paths[id(linear)]: mask
            for linear, mask in self.structured.parameter_masks()
            if id(linear) in paths
        }
        self.element_wise.removed_elsewhere = self._removed_besides_weights()
        self.element_wise.prune(max(0.0, 2 * amount - 1))

    def _removed_besides_weights(self) -> int:
        """Count the biases, say, that went with structures, where the budget counts them."""
        ledger, pruned = self.structured.ledger(), self.element_wise.parts
        gone = {part: ledger.dense[part] - ledger.kept[part] for part in parts_of(self.budget.of)}
        return sum(count for part, count in gone.items() if part not in pruned)

    @override
    def shrink(self, optimizer: Optimizer | None = None) -> bool:
        self.element_wise.allowed = {}
        return self.structured.shrink(optimizer)

    @override
    def _make_permanent(self) -> None:
        self.structured._make_permanent()
        self.element_wise._make_permanent()

    @override
    def masks(self) -> Mapping[str, Tensor]:
        return {**self.structured.masks(), **self.element_wise.masks()}

    @override
    def ledger(self) -> ParameterLedger:
        first, second = self.structured.ledger(), self.element_wise.ledger()
        kept = {part: min(first.kept[part], second.kept[part]) for part in first.kept}
        prunable = {
            part: max(first.prunable.get(part, 0), second.prunable.get(part, 0))
            for part in first.kept
        }
        return replace(first, kept=kept, prunable=prunable)

    @property
    @override
    def spare(self) -> int:
        return max(self.structured.spare, self.element_wise.spare)

    @property
    @override
    def excess(self) -> int:
        return self.element_wise.excess
