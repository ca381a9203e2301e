"""The progress of a schedule, as buffers of the pruned model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, ref

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.hooks import RemovableHandle

    from multiprune.pruning.pruner import Pruner

Model = TypeVar("Model", bound=nn.Module)

#: Under what name a model's state holds the step. Whoever loads that state into a model that no
#: pruner has prepared finds it among the keys that were not expected.
STEP = "pruning_step (call prepare of the pruner before this state is loaded)"


class Progress:
    """The number of optimizer steps that a schedule has seen.

    While attached it is an entry of the model's ``state_dict``: who saves and restores masks saves
    and restores the step with them. It is no buffer, which would wait for the GPU to be read.
    """

    def __init__(self) -> None:
        self.step = 0
        #: At which step the schedule ends, if who drives has said so.
        self.stop_step: int | None = None
        #: Whether there is anything to prune.
        self.has_excess = True
        self._handles: list[RemovableHandle] = []

    def attach(self, model: nn.Module, pruner: Pruner) -> None:
        """Become an entry of the state of a model that a pruner has prepared."""
        self.belong_to(pruner)
        self._handles = [
            model.register_state_dict_post_hook(self),  # type: ignore[no-untyped-call]
            model.register_load_state_dict_pre_hook(self._load),  # type: ignore[no-untyped-call]
        ]

    def belong_to(self, pruner: Pruner) -> None:
        """Note whose progress it is."""
        _PRUNERS[self] = ref(pruner)
        self.has_excess = pruner.excess > 0

    @property
    def goes_on(self) -> bool:
        """Whether masks and shapes may still change."""
        return self.has_excess and (self.stop_step is None or self.step < self.stop_step)

    def detach(self) -> None:
        """Leave the model's state."""
        while self._handles:
            self._handles.pop().remove()

    def __call__(self, _: nn.Module, state: dict[str, Tensor], prefix: str, __: Any) -> None:
        """Write the step into a state."""
        state[f"{prefix}{STEP}"] = torch.tensor(self.step)

    def _load(
        self,
        _: nn.Module,
        state: dict[str, Tensor],
        prefix: str,
        __: Any,
        ___: bool,
        missing: list[str],
        *____: Any,
    ) -> None:
        if (step := state.pop(f"{prefix}{STEP}", None)) is None:
            missing.append(f"{prefix}{STEP}")
        else:
            self.step = int(step)


#: Not attributes of the progress: a copy of a model would hold a copy of its pruner.
_PRUNERS: WeakKeyDictionary[Progress, ref[Pruner]] = WeakKeyDictionary()


def progress_of(model: nn.Module) -> Progress | None:
    """Return how far the pruning of a model, or of a part of it, has come, if it is pruned."""
    hooks = (hook for one in model.modules() for hook in one._state_dict_hooks.values())
    return next((hook for hook in hooks if isinstance(hook, Progress)), None)


def finalized(model: Model) -> Model:
    """Return a model as it would be if its pruning ended now: a copy, if it is being pruned.

    Raises:
        ValueError: if it is being pruned by a pruner that is not known, as a copy of a model is.
    """
    if (progress := progress_of(model)) is None:
        return model
    if (found := _PRUNERS.get(progress)) is None or (pruner := found()) is None:
        raise ValueError(
            "The model is being pruned, but its pruner is not known, as of a copy or an average: "
            "load its state into the model that was prepared, or copy that after pruner.finalize()."
        )
    copied, its_pruner = copy.deepcopy((model, pruner))
    its_pruner.finalize()
    return copied
