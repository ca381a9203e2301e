"""Losses of training are held against being finite without waiting for the device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class _Noted:
    """A loss on its way to the processor."""

    value: Tensor
    arrival: torch.cuda.Event | None
    task: str
    step: int


class FiniteLosses:
    """Looks at each loss of training one batch late.

    Who reads a tensor at once waits until the device has computed it, and leaves the device without
    work after that. So a loss is copied while the work goes on, and read when that of the next
    batch is queued, before the weights move again. ``check`` reads it now: whoever keeps what a
    step has made must call it first.
    """

    def __init__(self) -> None:
        self._noted: _Noted | None = None

    def note(self, loss: Tensor, task: str, step: int) -> None:
        """Check the loss before this one, and have this one copied.

        Raises:
            FloatingPointError: as ``check`` does.
        """
        self.check()
        # Of other devices it is not known when a copy that nobody waits for has arrived.
        value = loss.detach().to("cpu", non_blocking=loss.is_cuda or loss.is_cpu)
        arrival = torch.cuda.Event() if loss.is_cuda else None  # type: ignore[no-untyped-call]
        if arrival is not None:
            arrival.record(torch.cuda.current_stream(loss.device))
        self._noted = _Noted(value, arrival, task, step)

    def check(self) -> float | None:
        """Return the loss that was noted last, if it was not checked before.

        Raises:
            FloatingPointError: if it is not finite, with its task and step.
        """
        noted, self._noted = self._noted, None
        if noted is None:
            return None
        if noted.arrival is not None:
            noted.arrival.synchronize()
        value = noted.value.item()
        if not math.isfinite(value):
            raise FloatingPointError(
                f"The training loss must be finite, but is {value} for task {noted.task} at step "
                f"{noted.step}."
            )
        return value
