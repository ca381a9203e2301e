"""Numbers in a model's state that are known without waiting for the device that holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class KnownValue:
    """The value of a tensor with one entry, read only where somebody else has written it since.

    That is told by the number of writes that torch counts; those to ``tensor.data`` it does not.
    """

    def __init__(self) -> None:
        self._tensor: Tensor | None = None
        self._version = 0
        self._value: float | bool = 0

    def of(self, tensor: Tensor) -> float | bool:
        """Return the value, which is read if the tensor is another, or was written since."""
        if tensor is not self._tensor or tensor._version != self._version:
            self.note(tensor, tensor.item())
        return self._value

    def note(self, tensor: Tensor, value: float | bool) -> None:
        """Note what a tensor holds now."""
        self._tensor, self._version, self._value = tensor, tensor._version, value
