"""Pruning schedules: from training progress (0 to 1) to the share of pruning done (0 to 1)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from typing_extensions import override

from multiprune.arguments import check_number


class Schedule(ABC):
    """Three phases: dense warm-up until ``start``, pruning, healing from ``stop`` on.

    ``start`` and ``stop`` are fractions of the optimizer steps of the whole training.
    """

    def __init__(self, *, start: float, stop: float) -> None:
        check_number("start", start, at_least=0, at_most=1)
        check_number("stop", stop, above=0, at_most=1)
        if stop < start:
            raise ValueError(
                f"A schedule must not stop before it starts, but `start` is {start} "
                f"and `stop` is {stop}."
            )
        self.start, self.stop = start, stop

    def __call__(self, progress: float) -> float:
        """Return the amount of pruning due at ``progress``, both in [0, 1]."""
        if progress >= self.stop:
            return 1.0
        if progress <= self.start:
            return 0.0
        return self.ramp((progress - self.start) / (self.stop - self.start))

    @abstractmethod
    def ramp(self, position: float) -> float:
        """Return the amount at ``position`` (0 to 1) of the pruning phase."""

    def start_step(self, total_steps: int) -> int:
        """Return after how many optimizer steps the model is dense for the last time."""
        return min(math.floor(self.start * total_steps), self.stop_step(total_steps) - 1)

    def stop_step(self, total_steps: int) -> int:
        """Return the first optimizer step (from 1) after which the amount is 1."""
        step = math.ceil(self.stop * total_steps)
        # the product may round up to just above a whole number: 0.55 * 100 is 55.00000000000001
        return max(1, step - ((step - 1) / total_steps >= self.stop))


class CubicSchedule(Schedule):
    """The ramp of Zhu & Gupta (2017), equation 1: ``1 - (1 - position)^3``."""

    @override
    def ramp(self, position: float) -> float:
        return 1.0 - (1.0 - position) ** 3


class LinearSchedule(Schedule):
    """Equal amounts in equal times."""

    @override
    def ramp(self, position: float) -> float:
        return position


class OneShotSchedule(Schedule):
    """Nothing until ``at``, then everything at once."""

    def __init__(self, *, at: float) -> None:
        check_number("at", at, above=0, at_most=1)
        super().__init__(start=at, stop=at)

    @override
    def ramp(self, position: float) -> float:
        return 0.0
