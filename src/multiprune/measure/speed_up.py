"""Measured speed-up over the dense model, and its upper bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.measure.contestant import Cost
    from multiprune.measure.latency import Latency, Size

#: By how much times of the same work differ on a quiet machine, and a little more.
TOLERANCE = 0.1


@dataclass(frozen=True)
class SpeedUp:
    """A speed-up at the median latencies, beside the one that what was counted allows."""

    measured: float
    allowed: float

    @property
    def is_disturbed(self) -> bool:
        """Whether something else than the model must have made the difference."""
        return self.measured > self.allowed * (1 + TOLERANCE)


def allowed_speed_up(cost: Cost, dense: Cost, size: Size) -> float:
    """Return what multiply-adds allow, or reading the weights, whichever is more.

    Large batches wait for multiplications, a few tokens for the memory; weights of fewer bits are
    read and multiplied faster in proportion to their bytes.
    """
    return max(
        dense.multiply_adds[size] / cost.multiply_adds[size],
        dense.weight_bytes / cost.weight_bytes,
    )


def speed_ups(costs: Sequence[Cost], latencies: Sequence[Latency]) -> Mapping[Latency, SpeedUp]:
    """Return the speed-up of each latency that has one of the dense model to compare with."""
    by_name = {cost.model: cost for cost in costs}
    times = {(one.model, one.backend, one.size): one for one in latencies if not one.failure}
    found = {}
    for one in times.values():
        cost = by_name[one.model]
        if (dense := times.get((cost.dense, one.backend, one.size))) is not None:
            allowed = allowed_speed_up(cost, by_name[cost.dense], one.size)
            found[one] = SpeedUp(dense.median / one.median, allowed)
    return found
