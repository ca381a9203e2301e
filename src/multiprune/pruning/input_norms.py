"""Squared norms of the input features of linear layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from multiprune.pruning.all_ranks import summed
from multiprune.pruning.read_inputs import ReadInputs
from multiprune.pruning.ready import refuse_rough_sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.pruning.target import Target

#: The kind of buffer beside a weight that holds the sums.
SQUARES = "input_squares"


class InputSquares:
    """Sums up the squares of what layers read, over the steps that are taken, by input feature.

    The sums are buffers beside the weights. What the passes of a step say is held back until it is
    known that the optimizer took the step; ``ReadInputs`` says which passes count. With several
    processes, those of all do.
    """

    def __init__(self) -> None:
        self._watched: list[_Watched] = []
        self._wanted = True

    def watch(self, targets: Sequence[Target], inside: nn.Module) -> None:
        """Begin to read what the layers of some weights read, all within ``inside``."""
        self._watched = [_Watched(target, _owners(target, inside)) for target in targets]

    def norms(self, target: Target) -> Float[Tensor, "in"]:
        """Return the Euclidean norm of each input of a layer; of one that read nothing, ones."""
        squares = target.buffer(SQUARES)
        return torch.where(squares.any(), squares.sqrt(), 1.0)

    def close_step(self) -> None:
        """All passes of a step have run, in all processes."""
        if not self._wanted:
            return
        for watched, total in zip(
            self._watched, summed([one.of_step for one in self._watched]), strict=True
        ):
            watched.of_step = total

    def add(self) -> None:
        """Add what was held back to the sums: the step was taken."""
        for watched in self._watched:
            watched.target.buffer(SQUARES).add_(watched.of_step)

    def forget(self, *, wanted: bool) -> None:
        """Drop what was held back; ``wanted`` says whether what is read from now on counts."""
        self._wanted = wanted
        for watched in self._watched:
            watched.forget()
            watched.wanted = wanted

    def check_ready(self, method: str) -> None:
        """Raise a NotReadyError if the sums have too few bits to add to."""
        refuse_rough_sums(method, [one.target.buffer(SQUARES) for one in self._watched])

    def remove(self) -> None:
        """Leave neither buffers nor hooks."""
        for watched in self._watched:
            watched.remove()
        self._watched = []


class _Watched(ReadInputs):
    """One weight, and what its layers have read since the last step."""

    def __init__(self, target: Target, owners: Sequence[nn.Linear]) -> None:
        super().__init__(owners)
        weight = target.weight
        precision = torch.promote_types(weight.dtype, torch.float32)
        target.add(SQUARES, weight.new_zeros(weight.shape[1], dtype=precision))
        self.target, self.wanted = target, True

    @override
    def is_wanted(self) -> bool:
        return self.wanted

    @override
    def zeros(self) -> Tensor:
        return torch.zeros_like(self.target.buffer(SQUARES))

    @override
    def sum_of(self, inputs: Tensor) -> Tensor:
        squares = squares_of(inputs, self.target.buffer(SQUARES).dtype)
        # What is read after a cut has another width, and is no longer asked for.
        return squares if squares.shape == self.target.buffer(SQUARES).shape else self.zeros()

    def remove(self) -> None:
        self.detach()
        self.target.remove(SQUARES)


def squares_of(inputs: Float[Tensor, "*tokens in"], dtype: torch.dtype) -> Float[Tensor, "in"]:
    """Return the sum of squares by feature, over all tokens."""
    # Squares of fp16 overflow from 256 on; of bf16 they are rounded, which evens out.
    inputs = inputs.to(dtype) if inputs.dtype == torch.float16 else inputs
    return inputs.square().flatten(0, -2).sum(0, dtype=dtype)


def _owners(target: Target, inside: nn.Module) -> list[nn.Linear]:
    """Return the linear layers that have this weight: several, if it is tied."""
    weight = getattr(target.module, target.name)
    owners = [
        module
        for module in inside.modules()
        if isinstance(module, nn.Linear) and module.weight is weight
    ]
    if not owners:
        raise ValueError(
            f"Norms of inputs are those of linear layers, but {target.path} is the weight of none: "
            "leave its part out of `parts`."
        )
    return owners
