"""The interface of a pruning method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from multiprune.arguments import check_is
from multiprune.budget import Budget
from multiprune.pruning.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from multiprune.budget import ParameterLedger


class Pruner(ABC):
    """Removes parameters of a model until a budget is met.

    Tensors that a method needs live in the model, as buffers beside the parameter they belong to;
    a pruner holds references and settings. Who drives it calls, in this order, ``prepare`` once,
    then for every optimizer step ``before_step`` and ``after_step`` (or ``skip_step``), now and
    then ``prune``, once that is done ``shrink``, and ``finalize`` at the end.
    """

    def __init__(self, *, budget: Budget) -> None:
        check_is(Budget, "FractionBudget(0.1)", budget=budget)
        self.budget = budget
        #: Attached by ``prepare``, and until ``finalize``.
        self.progress = Progress()

    @abstractmethod
    def prepare(self, model: nn.Module, encoder: nn.Module | None = None) -> None:
        """Insert what the method needs. The function that the model computes does not change.

        ``encoder`` is the part of ``model`` to prune, all of it by default.

        Raises:
            ValueError: if there is nothing to prune, or the budget cannot be met.
        """

    @abstractmethod
    def before_step(self, learning_rate_scale: float = 1.0) -> None:
        """Read or rewrite the gradients: they are complete (accumulated, reduced, unscaled).

        ``learning_rate_scale`` is the learning rate as a fraction of its peak; what a method
        learns besides the weights follows it.
        """

    @abstractmethod
    def after_step(self) -> None:
        """The optimizer has moved the weights: put the pruned ones back to zero."""

    @abstractmethod
    def skip_step(self) -> None:
        """The optimizer was not run after ``before_step``: restore what that call changed."""

    @abstractmethod
    def prune(self, amount: float) -> None:
        """Choose what survives, ``amount`` (0 to 1) of the way from dense to the budget."""

    def shrink(self, optimizer: Optimizer | None = None) -> bool:  # noqa: ARG002
        """Cut what is pruned out of the layers, and out of what ``optimizer`` remembers of them.

        For when nothing more is pruned. What the model computes, and its next step, stay the same.
        Returns whether anything was cut: single weights cannot be.
        """
        return False

    @abstractmethod
    def finalize(self) -> None:
        """Make the pruning permanent, and leave plain layers."""

    @abstractmethod
    def masks(self) -> Mapping[str, Tensor]:
        """Return what is kept now: boolean masks by path.

        Element-wise, one a parameter, of its shape; otherwise vectors, one a kind of group.
        """

    @abstractmethod
    def ledger(self) -> ParameterLedger:
        """Count the model as it stands."""

    @property
    @abstractmethod
    def excess(self) -> int:
        """The number of parameters that the dense model has above the budget."""
