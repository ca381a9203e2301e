"""Hooks that accumulate statistics of the inputs of linear layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from torch.utils.hooks import RemovableHandle


class ReadInputs(ABC):
    """What some layers, which share a weight if they are several, have read since the last step.

    A pass counts when it is differentiated, so once however often gradient checkpointing runs it,
    and in training mode alone. Every token counts, those of padding too.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._of_step: Tensor | None = None
        self._handles: list[RemovableHandle] = [
            layer.register_forward_hook(self) for layer in layers
        ]

    @abstractmethod
    def is_wanted(self) -> bool:
        """Whether what is read now counts."""

    @abstractmethod
    def zeros(self) -> Tensor:
        """Return the sum over nothing."""

    @abstractmethod
    def sum_of(self, inputs: Tensor) -> Tensor:
        """Return the sum over the tokens of a pass."""

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Read a pass; count it once it is differentiated, or now if nothing will tell."""
        if not self.is_wanted() or not layer.training or not torch.is_grad_enabled():
            return
        found = self.sum_of(inputs[0].detach())
        if torch.compiler.is_compiling() or not output.requires_grad:
            self._count(found)  # torch.compile follows no hooks of tensors
            return
        left = [found]

        def count(_: Any) -> None:
            while left:  # a graph may be differentiated twice
                self._count(left.pop())

        output.register_hook(count)  # type: ignore[no-untyped-call]

    @property
    def of_step(self) -> Tensor:
        """What the passes of this step have read."""
        return self.zeros() if self._of_step is None else self._of_step

    @of_step.setter
    def of_step(self, total: Tensor) -> None:
        self._of_step = total

    def forget(self) -> None:
        """Drop what was read since the last step."""
        self._of_step = None

    def detach(self) -> None:
        """Read no more."""
        while self._handles:
            self._handles.pop().remove()

    def _count(self, found: Tensor) -> None:
        self._of_step = found if self._of_step is None else self._of_step + found
