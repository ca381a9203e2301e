"""Finetune one text encoder on many tasks while it is pruned to a parameter budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.export.loading import ShippedModel


def load(path: str | Path, *, trust_remote_code: bool = False) -> ShippedModel:
    """Load the model of a finished run, or an exported one; see ``multiprune.export.loading``."""
    # Imported late: whoever only asks for --help does not wait for torch.
    from multiprune.export.loading import load as load_model

    return load_model(path, trust_remote_code=trust_remote_code)
