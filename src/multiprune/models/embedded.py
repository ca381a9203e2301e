"""The encoder that comes with the package, pretrained by ``experiment=pretrain_nano``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.models.encoder import pretrained

if TYPE_CHECKING:
    from multiprune.models.encoder import Encoder


def folder() -> str:
    """Return where the encoder and its tokenizer lie."""
    return str(Path(__file__).parent / "nano")


def nano(*, dropout: float | None = None, freeze_embeddings: bool = False) -> Encoder:
    """Load the embedded encoder, as ``pretrained`` does; no network is needed."""
    return pretrained(folder(), dropout=dropout, freeze_embeddings=freeze_embeddings)
