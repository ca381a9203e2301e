"""The interface of a pruning method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from multiprune.arguments import check_is
from multiprune.budget import Budget
from multiprune.budget.ledger import check_owned
from multiprune.pruning.progress import Progress
from multiprune.pruning.ready import refuse_without_gradients
from multiprune.pruning.weight_averaging import watch_averages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from multiprune.budget import ParameterLedger
    from multiprune.pruning.by_task import ByTask
    from multiprune.pruning.ready import Weight
    from multiprune.pruning.sizes import EverySize, Parts


# Here, as an average may be made before there is a pruner.
watch_averages()


class UnfinishedPruningError(RuntimeError):
    """What a budget asks for has not been reached."""


class Pruner(ABC):
    """Removes parameters of a model until a budget is met.

    Tensors that a method needs live in the model, as buffers beside the parameter they belong to;
    a pruner holds references and settings. Who drives it calls, in this order, ``prepare`` once,
    then for every optimizer step ``before_step`` and ``after_step`` (or ``skip_step``), now and
    then ``prune``, once that is done ``shrink``, and ``finalize`` at the end.
    """

    #: Whether each ranking takes what is due, rather than the last one everything.
    is_gradual = True
    #: Whether what survives depends on gradients of weights.
    reads_gradients = True
    #: Whether ``prepare`` puts other layers, with parameters of their own, in the place of some.
    replaces_layers = False
    #: Keeps apart what the gradients of each task say; None if it is all one.
    by_task: ByTask | None = None

    # What ``spare`` and ``excess`` return, once ``prepare`` has found it.
    _spare: int
    _excess: int

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

    def weights(self) -> Iterable[Weight]:
        """Return the weights in scope that have not been cut."""
        return ()

    def check_ready(self) -> None:
        """Hold the prepared model, as it will be trained, against what the method needs.

        Raises:
            ValueError: if weights are computed from others or, where gradients are read, have
                none or too few bits.
        """
        for weight in self.weights():
            check_owned(*weight)
        if self.reads_gradients:
            refuse_without_gradients(type(self).__name__, self.weights())

    def forget_passes(self) -> None:  # noqa: B027
        """Forget what passes that lead to no step have left."""

    def note_tasks(self, tasks: Iterable[str]) -> None:
        """Note, before ``before_step``, of which tasks the gradients of the step are."""
        if self.by_task is not None:
            self.by_task.note(tasks)

    def each_task(self) -> Iterator[None]:
        """Yield once while the statistics of each task are looked at, or of all if they are one."""
        for _ in [0] if self.by_task is None else self.by_task.each():
            yield

    def trained_parts(self) -> Parts | None:
        """Return what a training step must run besides the whole encoder, if there is any."""
        return None

    def check_passes(self) -> None:  # noqa: B027
        """Raise a RuntimeError unless the passes since the last step are those that are needed."""

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

    def finalize(self) -> None:
        """Make the pruning permanent, and leave plain layers.

        Raises:
            UnfinishedPruningError: if the budget is not met, as where training has ended before
                its schedule; the model stays as it is.
        """
        self.check_budget()
        self.leave()

    def leave(self) -> None:
        """Leave plain layers that hold what is kept now, whether or not that meets the budget."""
        self.progress.detach()
        self._make_permanent()

    @abstractmethod
    def _make_permanent(self) -> None:
        """Leave plain layers that hold what is kept."""

    def sizes(self) -> EverySize | None:
        """Return every size of the encoder, to be saved, after ``finalize``; None if it has one."""
        return None

    def check_budget(self) -> None:
        """Raise an UnfinishedPruningError unless the model keeps what the budget asks for.

        Not more, and at most ``spare`` less, unless it had less from the start.
        """
        ledger = self.ledger()
        asked, kept = self.budget.resolve(ledger), ledger.kept_in(self.budget.of)
        if kept > asked or (self.excess and kept < asked - self.spare):
            raise self.unfinished()

    def unfinished(self) -> UnfinishedPruningError:
        """Return the error that says how far pruning has come."""
        ledger, of = self.ledger(), self.budget.of
        return UnfinishedPruningError(
            f"Pruning is not finished{self._when()}: {ledger.kept_in(of):,} of "
            f"{ledger.dense_in(of):,} parameters ({of}) are kept, but the budget is "
            f"{self.budget.resolve(ledger):,}. Train to the end of the schedule, or call "
            "`prune(1.0)` on the pruner to go to the budget at once."
        )

    def _when(self) -> str:
        step, steps = self.progress.step, self.progress.stop_step
        return "" if steps is None else f" at step {step:,} of the schedule's {steps:,}"

    @abstractmethod
    def masks(self) -> Mapping[str, Tensor]:
        """Return what is kept now: boolean masks by path.

        Element-wise, one a parameter, of its shape; otherwise vectors, one a kind of group.
        """

    @abstractmethod
    def ledger(self) -> ParameterLedger:
        """Count the model as it stands."""

    @property
    def spare(self) -> int:
        """The most parameters by which the last ranking may stay below the budget."""
        return self._spare

    @property
    def excess(self) -> int:
        """The number of parameters that the dense model has above the budget."""
        return self._excess
