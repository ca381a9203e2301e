"""A parameter whose single weights are pruned, and its buffers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from multiprune.pruning.by_task import ByTask


@dataclass(frozen=True)
class Target:
    """A parameter in scope, and the buffers that a method keeps beside it in its module.

    With ``by_task``, the buffers of the kinds ``apart`` have a dimension of tasks before those that
    are added; what is looked up is of the task that ``by_task`` says.
    """

    path: str
    module: nn.Module
    name: str
    by_task: ByTask | None = None
    apart: tuple[str, ...] = ()

    @property
    def weight(self) -> Tensor:
        """The parameter, outside autograd; its ``grad`` is ``Target.gradient``."""
        return self._parameter.data

    @property
    def gradient(self) -> Tensor | None:
        """The dense gradient that backward has left, if the parameter took part."""
        return self._parameter.grad

    def drop_gradient(self) -> None:
        """Leave no gradient: optimizers pass such a parameter by, with momentum and decay."""
        self._parameter.grad = None

    @property
    def mask(self) -> Tensor:
        """What is kept: boolean, of the parameter's shape, one byte a weight."""
        return self.buffer("mask")

    def add(self, kind: str, tensor: Tensor) -> None:
        """Register a buffer ``<name>_<kind>`` beside the parameter."""
        if self.by_task is not None and kind in self.apart:
            tensor = self.by_task.apart(tensor)
        self.module.register_buffer(f"{self.name}_{kind}", tensor)

    def buffer(self, kind: str) -> Tensor:
        """Look a buffer up, anew each time, since moving a model replaces its buffers."""
        tensor: Tensor = getattr(self.module, f"{self.name}_{kind}")
        if self.by_task is not None and kind in self.apart:
            return tensor[self.by_task.current]
        return tensor

    def remove(self, kind: str) -> None:
        """Delete a buffer."""
        delattr(self.module, f"{self.name}_{kind}")

    @property
    def _parameter(self) -> nn.Parameter:
        parameter: nn.Parameter = getattr(self.module, self.name)
        return parameter
