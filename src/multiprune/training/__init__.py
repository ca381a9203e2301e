"""Lightning integration: ``Pruning`` is a callback for any Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprune.training.pruning import Pruning

__all__ = ["Pruning"]


def __getattr__(name: str) -> object:
    """Import the callback, and torch with it, when it is asked for."""
    if name != "Pruning":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from multiprune.training.pruning import Pruning

    return Pruning
