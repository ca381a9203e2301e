"""Check training losses for NaN and infinity without a device sync."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


@dataclass(frozen=True)
class _Noted:
    """The losses of tasks, shape (tasks,), on their way to the processor."""

    values: Tensor
    arrival: torch.cuda.Event | None
    tasks: Sequence[str]
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

    def note(self, losses: Mapping[str, Tensor], step: int) -> None:
        """Check the losses before, and have those of a step copied, by task.

        Raises:
            FloatingPointError: as ``check`` does.
        """
        self.check()
        # Of other devices it is not known when a copy that nobody waits for has arrived.
        stacked = torch.stack([loss.detach() for loss in losses.values()])
        values = stacked.to("cpu", non_blocking=stacked.is_cuda or stacked.is_cpu)
        arrival = torch.cuda.Event() if stacked.is_cuda else None  # type: ignore[no-untyped-call]
        if arrival is not None:
            arrival.record(torch.cuda.current_stream(stacked.device))
        self._noted = _Noted(values, arrival, [*losses], step)

    def check(self) -> float | None:
        """Return the sum of the losses that were noted last, if they were not checked before.

        Raises:
            FloatingPointError: if one is not finite, with its task and step.
        """
        noted, self._noted = self._noted, None
        if noted is None:
            return None
        if noted.arrival is not None:
            noted.arrival.synchronize()
        values: list[float] = noted.values.tolist()
        for task, value in zip(noted.tasks, values, strict=True):
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"The training loss is {value} for task {task} at step {noted.step}: "
                    "lower the learning rate, or clip gradients."
                )
        return sum(values)
