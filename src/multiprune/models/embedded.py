"""The encoder that comes with the package, pretrained by ``experiment=pretrain_nano``."""

from __future__ import annotations

from pathlib import Path


def folder() -> str:
    """Return where the encoder and its tokenizer lie."""
    return str(Path(__file__).parent / "nano")
