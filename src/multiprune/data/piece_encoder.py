"""Pieces of a corpus packed to blocks: once, whatever runs need them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.data.cache import encoding_key, stored
from multiprune.tasks.packing import packed

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from multiprune.data.pieces import Piece
    from multiprune.tasks.masked_language import MaskedLanguage
    from multiprune.tasks.packing import Packing


@dataclass(frozen=True, kw_only=True)
class PieceEncoder:
    """Tokenizes and packs pieces, and keeps what comes of each in the cache.

    Attributes:
        packing: what a block is made of.
        tokenizer: that of the encoder.
        max_length: of a block, in tokens.
        folder: of all pieces that were encoded in this way.
    """

    packing: Packing
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    folder: Path

    def __call__(self, piece: Piece) -> Dataset:
        """Return the blocks of a piece, on disk; encode them if they are not there yet.

        Raises:
            CorpusError: if the piece cannot be read as it should be.
        """
        return stored(
            self._place(piece),
            lambda: [(packed(piece.texts(), self.packing, self.tokenizer, self.max_length)[0], 0)],
        )[0]

    def has(self, piece: Piece) -> bool:
        """Whether the blocks of a piece are there."""
        return self._place(piece).is_dir()

    def _place(self, piece: Piece) -> Path:
        return self.folder / hashlib.sha256(piece.fingerprint.encode()).hexdigest()[:32]


def piece_encoder(
    task: MaskedLanguage, tokenizer: PreTrainedTokenizerBase, *, max_length: int, folder: Path
) -> PieceEncoder:
    """Return what encodes pieces as a task encodes rows; ``folder`` is the cache."""
    key = encoding_key(task, "pieces", tokenizer, max_length)
    return PieceEncoder(
        packing=task.packing,
        tokenizer=tokenizer,
        max_length=max_length,
        folder=folder / f"streamed-{key}",
    )
