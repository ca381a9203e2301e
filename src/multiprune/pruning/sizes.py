"""The sizes of a dynamic model: those trained in a step, and those saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from transformers import PreTrainedModel

    from multiprune.models.nested import RemovalOrder


class Parts(Protocol):
    """Parts of an encoder that every training step runs besides the whole.

    Attributes:
        temperature: of the softened answers of the whole encoder, which the parts learn.
        label_weight: of the labels for the parts, in [0, 1]; those answers have the rest.
    """

    temperature: float
    label_weight: float

    def parts_of_step(self, step: int) -> list[int]:
        """Return which parts a training step runs: removals, smallest part first."""

    def part(self, removals: int) -> AbstractContextManager[None]:
        """Let the encoder be what is left after so many removals."""


@dataclass(frozen=True)
class EverySize:
    """An encoder with the order in which its units go, one size after the other."""

    encoder: PreTrainedModel
    order: RemovalOrder
