"""Drive a pruner through its schedule, one optimizer step at a time, in any training loop."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING

from torch.optim import Optimizer

from multiprune.arguments import check_is, check_number
from multiprune.pruning.pruner import Pruner
from multiprune.pruning.schedule import Schedule

if TYPE_CHECKING:
    from typing import Any

    from torch.utils.hooks import RemovableHandle


#: The entry of an optimizer's group that holds the largest learning rate that it has had.
PEAK = "peak_lr"


log = logging.getLogger(__name__)


class GradualPruning:
    """Counts optimizer steps and has the pruner rank anew every ``every_n_steps`` of them.

    From the step on at which the schedule ends the masks stay as they are, so that the rest of the
    training heals a fixed network. Works as two hooks on any ``torch`` optimizer (``attach``), or
    driven by hand where a framework runs backward inside ``optimizer.step``.

    The position in the schedule is part of the model's state from ``pruner.prepare`` on, as masks
    are. So to resume: prepare the model, and load its state.
    """

    def __init__(
        self, pruner: Pruner, schedule: Schedule, *, total_steps: int, every_n_steps: int = 10
    ) -> None:
        check_is(Pruner, "Magnitude", pruner=pruner)
        check_is(Schedule, "CubicSchedule(start=0.1, stop=0.7)", schedule=schedule)
        check_number("every_n_steps", every_n_steps, at_least=1, whole=True)
        check_number("total_steps", total_steps, at_least=1, whole=True)
        self.pruner, self.schedule = pruner, schedule
        self.total_steps, self.every_n_steps = total_steps, every_n_steps
        self.stop_step = schedule.stop_step(total_steps)
        pruner.check_ready()
        pruner.progress.stop_step = self.stop_step
        steps = [*range(0, self.stop_step, every_n_steps), total_steps]
        amounts = [schedule(step / total_steps) for step in steps]
        self._largest_step = max(after - before for before, after in pairwise(amounts))
        #: The tasks of the batches since the last step, added to by who knows them.
        self.tasks: set[str] = set()
        #: Whether ``before_step`` was called and the optimizer has not run yet.
        self.pending = False
        #: Whether layers were cut in this process.
        self.was_cut = False

    @property
    def step(self) -> int:
        """Optimizer steps taken; steps that a gradient scaler skipped do not count."""
        return self.pruner.progress.step

    @step.setter
    def step(self, step: int) -> None:
        self.pruner.progress.step = step

    @property
    def amount(self) -> float:
        """The amount of pruning due at this step, 0 to 1."""
        return 1.0 if self.step >= self.stop_step else self.schedule(self.step / self.total_steps)

    @property
    def finished(self) -> bool:
        """Whether the schedule has come to its end, or there was nothing to prune."""
        return self.step >= self.stop_step or self.pruner.excess == 0

    def attach(self, optimizer: Optimizer, *, late: bool = False) -> list[RemovableHandle]:
        """Hook into ``optimizer``, or into the one that it wraps; remove the handles to detach.

        For loops that call ``loss.backward()`` before ``optimizer.step()``. With a gradient scaler,
        call ``scaler.unscale_(optimizer)`` first. ``late`` says that the optimizer took steps
        before the schedule began.

        Raises:
            TypeError: if there is no optimizer of torch.
            ValueError: if the pruner is not prepared, or the optimizer was made before that and
                holds layers that are gone, or has taken steps that the schedule has not seen, as
                after a resume that forgot the model's state.
        """
        optimizer = torch_optimizer(optimizer)
        if not hasattr(self.pruner, "excess"):
            raise ValueError("The pruner is not prepared: call pruner.prepare(model) first.")
        if self.step == 0 and optimizer.state and not late:
            raise ValueError(
                "The optimizer has taken steps, but the pruning schedule is at step 0: to resume, "
                "call pruner.prepare(model) before the model's state is loaded; to begin pruning "
                "only now, pass late=True."
            )
        self._check_held(optimizer)

        def before(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
            self.before_step(optimizer)

        def after(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
            self.after_step(optimizer)

        # Some prepare with another progress than this was made for.
        self.pruner.progress.stop_step = self.stop_step
        return [
            optimizer.register_step_pre_hook(before),
            optimizer.register_step_post_hook(after),
            optimizer.register_load_state_dict_pre_hook(_check_state),
        ]

    def _check_held(self, optimizer: Optimizer) -> None:
        held = {id(one) for group in optimizer.param_groups for one in group["params"]}
        weights = [getattr(module, name) for _, module, name in self.pruner.weights()]
        if self.pruner.replaces_layers and not any(id(weight) in held for weight in weights):
            raise ValueError(
                f"{type(self.pruner).__name__} replaces layers, and the optimizer holds none of "
                "the new ones: make it after pruner.prepare(model)."
            )

    def before_step(self, optimizer: Optimizer) -> None:
        """Gradients are complete, and the optimizer is about to move."""
        self.pruner.note_tasks(self.tasks)
        self.tasks = set()
        self.pruner.before_step(learning_rate_scale(optimizer))
        self.pending = True

    def after_step(self, optimizer: Optimizer | None = None) -> bool:
        """The optimizer has moved; return whether the pruner ranked anew.

        At the end of the schedule what is pruned is cut out of the layers and of ``optimizer``, so
        that healing runs at the speed of the small model.
        """
        self.pruner.after_step()
        self.pending = False
        self.step += 1
        if self.step == self.stop_step:
            self.finish(optimizer)
            return True
        if self.step % self.every_n_steps == 0 and self.step < self.stop_step:
            self._rank(self.amount)
            return True
        return False

    def finish(self, optimizer: Optimizer | None = None) -> None:
        """Go to the end of the schedule: where no more steps are to come, after some were skipped.

        What is pruned is cut out of the layers and of ``optimizer``.
        """
        self.step = self.stop_step
        self._rank(1.0)
        if optimizer is not None:
            self.was_cut = self.pruner.shrink(optimizer)

    def _rank(self, amount: float) -> None:
        """Have the pruner rank; warn if much more goes at once than the schedule has planned."""
        before = self._kept()
        self.pruner.prune(amount)
        removed, planned = before - self._kept(), self._largest_step * self.pruner.excess
        if self.pruner.is_gradual and removed > 2 * planned + self.pruner.spare:
            log.warning(
                "%s removed %s parameters at step %s, where the schedule plans at most %s at once: "
                "the rest of the training may not heal that.",
                type(self.pruner).__name__,
                f"{removed:,}",
                f"{self.step:,}",
                f"{int(planned):,}",
            )

    def _kept(self) -> int:
        return self.pruner.ledger().kept_in(self.pruner.budget.of)

    def skip_step(self) -> None:
        """The optimizer did not move (its gradients overflowed): undo ``before_step``."""
        self.pruner.skip_step()
        self.pending = False


def _check_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Refuse the state of an optimizer from before or after whole layers were dropped."""
    own, saved = (
        sum(len(group["params"]) for group in groups)
        for groups in (optimizer.param_groups, state["param_groups"])
    )
    if own != saved:
        raise ValueError(
            f"The optimizer has {own} parameters, and the state that is loaded {saved}, as where "
            "pruning has dropped whole layers in between: load the model's state into a newly "
            "prepared model first, then make the optimizer."
        )


def learning_rate_scale(optimizer: Optimizer) -> float:
    """Return the learning rate of the first group as a fraction of its peak.

    The peak is what a learning-rate scheduler notes as ``initial_lr`` or ``max_lr``, or the
    largest rate that was seen here, which the group remembers: so it is in the optimizer's state.
    """
    group = optimizer.param_groups[0]
    group[PEAK] = max(float(group.get(key, 0)) for key in ("lr", "initial_lr", "max_lr", PEAK))
    return float(group["lr"]) / group[PEAK] if group[PEAK] else 1.0


def torch_optimizer(optimizer: object) -> Optimizer:
    """Return the optimizer within wrappers such as that of accelerate."""
    wrapped = optimizer
    # A wrapper may be an Optimizer by name only, without hooks.
    while isinstance(inner := getattr(wrapped, "optimizer", None), Optimizer):
        wrapped = inner
    if not isinstance(wrapped, Optimizer):
        raise TypeError(
            "Pruning is attached to a torch.optim.Optimizer, or to a wrapper that holds one as "
            f"`.optimizer`, but {type(optimizer).__name__} is neither."
        )
    return wrapped
