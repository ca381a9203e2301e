"""Second moments of the inputs of linear layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from multiprune.pruning.all_ranks import summed
from multiprune.pruning.read_inputs import ReadInputs
from multiprune.pruning.ready import refuse_rough_sums

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.models.late_low_rank import LateLowRankLinear
    from multiprune.models.low_rank import LowRankLinear
    from multiprune.pruning.progress import Progress

#: The buffer of a layer that holds the sum, of shape (in, in), or (0, 0) where there is none.
MOMENT = "input_moment"


class SecondMoments:
    """Sums up ``x x'`` over all tokens ``x`` that layers read in the last steps of a schedule.

    That is the last ``steps`` before the schedule ends, in which weights hardly move: all of them
    count alike. Where nobody has said when it ends, every step counts. For a layer with more inputs
    than outputs the product costs more than the layer, and its sum is as large as a matrix, so
    neither is there before or after. What the passes of a step say is held back until it is known
    that the optimizer took the step; ``ReadInputs`` says which passes count. With several
    processes, those of all do.
    """

    def __init__(self, layers: Sequence[LateLowRankLinear], progress: Progress, steps: int) -> None:
        self._progress, self._steps = progress, steps
        self._watched = [_Watched(layer, self) for layer in layers]
        self.forget()

    def wanted(self, *, ahead: int = 0) -> bool:
        """Whether the present step counts, or one that many steps ahead."""
        step, stop = self._progress.step + ahead, self._progress.stop_step
        return self._progress.has_excess and (stop is None or stop - self._steps <= step < stop)

    def close_step(self) -> None:
        """All passes of a step have run, in all processes."""
        if self.wanted():
            dense = self._dense()
            totals = summed([one.of_step for one in dense])
            for watched, total in zip(dense, totals, strict=True):
                watched.of_step = total

    def add(self) -> None:
        """Add what was held back to the sums: the step was taken."""
        if self.wanted():
            for watched in self._dense():
                moment, read = watched.layer.get_buffer(MOMENT), watched.of_step
                _set(watched.layer, moment.add_(read) if len(moment) else read)
        self.forget(ahead=1)  # the step is counted last

    def forget(self, *, ahead: int = 0) -> None:
        """Drop what was held back, before the present step, or one that many steps ahead."""
        wanted = self.wanted(ahead=ahead)
        for watched in self._watched:
            watched.forget()
            watched.reads = wanted

    def clear(self) -> None:
        """Drop the sums."""
        for watched in self._watched:
            _set(watched.layer, watched.layer.get_buffer(MOMENT).new_empty(0, 0))

    def check_ready(self, method: str) -> None:
        """Raise a NotReadyError if the sums have too few bits to add to."""
        refuse_rough_sums(method, [one.layer.get_buffer(MOMENT) for one in self._watched])

    def detach(self) -> None:
        """Read no more."""
        for watched in self._watched:
            watched.detach()

    def _dense(self) -> list[_Watched]:
        return [watched for watched in self._watched if watched.layer.is_dense]


def moment_of(layer: LowRankLinear) -> Float[Tensor, "in in"]:
    """Return the sum of ``x x'`` that was gathered of a layer: zeros if nothing was."""
    moment, inputs = layer.get_buffer(MOMENT), layer.in_features
    return moment if len(moment) else moment.new_zeros(inputs, inputs)


def products_of(inputs: Float[Tensor, "*tokens in"], dtype: torch.dtype) -> Float[Tensor, "in in"]:
    """Return the sum of ``x x'`` over all tokens ``x``."""
    rows = inputs.flatten(0, -2).to(dtype)
    return rows.T @ rows


class _Watched(ReadInputs):
    """One layer, and what it has read since the last step."""

    def __init__(self, layer: LateLowRankLinear, moments: SecondMoments) -> None:
        super().__init__([layer])
        self.layer, self._moments = layer, moments
        # Not asked for in each pass: torch.compile would compile anew with every step's number.
        self.reads = True
        weight = next(layer.parameters())
        precision = torch.promote_types(weight.dtype, torch.float32)
        layer.register_buffer(MOMENT, weight.new_empty(0, 0, dtype=precision))
        layer.register_load_state_dict_pre_hook(self._load)  # type: ignore[no-untyped-call]

    @override
    def is_wanted(self) -> bool:
        return self.reads and self.layer.is_dense

    @override
    def zeros(self) -> Tensor:
        return torch.zeros_like(moment_of(self.layer))

    @override
    def sum_of(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            return products_of(inputs, self.layer.get_buffer(MOMENT).dtype)

    def _load(self, _: nn.Module, state: Mapping[str, Tensor], prefix: str, *__: Any) -> None:
        """Take on the size that the sum has in a state that is loaded, whose step is loaded."""
        self.reads = self._moments.wanted()
        own, saved = self.layer.get_buffer(MOMENT), state.get(f"{prefix}{MOMENT}")
        if saved is not None and saved.shape != own.shape:
            _set(self.layer, own.new_empty(saved.shape))


def _set(layer: nn.Module, moment: Tensor) -> None:
    setattr(layer, MOMENT, moment)
