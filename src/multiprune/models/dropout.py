"""Dropout of heads, by default that of the encoder."""

from __future__ import annotations

from multiprune.arguments import check_number
from multiprune.tasks.outputs.heads import USUAL_DROPOUT


def dropout_of_heads(head_dropout: float | None, dropout: float | None) -> float:
    """Return what is set for heads, or else for the encoder, or else the usual.

    Raises:
        ValueError: if one of them is no probability below 1.
    """
    for name, value in (("head_dropout", head_dropout), ("dropout", dropout)):
        if value is not None:
            check_number(f"encoder.{name}", value, at_least=0, below=1)
    return next((one for one in (head_dropout, dropout) if one is not None), USUAL_DROPOUT)
