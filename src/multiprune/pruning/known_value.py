"""Values of a model's state that are known without a device sync."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


class KnownValue:
    """A value that a tensor holds, read only where somebody else has written the tensor since.

    That is told by the number of writes that torch counts; those to ``tensor.data`` it does not.
    """

    def __init__(self) -> None:
        self._tensor: Tensor | None = None
        self._version = 0
        self._value: float | bool = 0

    def of(
        self, tensor: Tensor, read: Callable[[Tensor], float | bool] = Tensor.item
    ) -> float | bool:
        """Return the value, which is read if the tensor is another, or was written since.

        ``read`` says what of the tensor it is: by default its only entry.
        """
        if tensor is not self._tensor or tensor._version != self._version:
            self.note(tensor, read(tensor))
        return self._value

    def note(self, tensor: Tensor, value: float | bool) -> None:
        """Note what a tensor holds now."""
        self._tensor, self._version, self._value = tensor, tensor._version, value
