"""``multiprune tokenizer``: train a tokenizer on texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.cli.command import add_command
from multiprune.quiet import quiet_libraries

if TYPE_CHECKING:
    import argparse

    from multiprune.cli.command import Commands


def add_tokenizer_command(commands: Commands) -> None:
    """Add ``tokenizer``."""
    tokenizer = add_command(
        commands,
        "tokenizer",
        summary="Train a tokenizer.",
        about="Reads text files with one text per line, or parquet files with a column `text`. "
        "Trains WordPiece with BERT's special tokens, or byte-level BPE with RoBERTa's. The same "
        "texts give the same tokenizer.",
        example="multiprune tokenizer texts.parquet --size 8000 --lowercase --out my-tokenizer",
    )
    text = "text or parquet files"
    tokenizer.add_argument("files", type=Path, nargs="+", metavar="FILE", help=text)
    tokenizer.add_argument("--out", type=Path, required=True, help="new folder")
    tokenizer.add_argument(
        "--kind", default="wordpiece", help="wordpiece or bpe (default: %(default)s)"
    )
    text = "vocabulary size, with special tokens (default: %(default)s)"
    tokenizer.add_argument("--size", type=int, default=8000, metavar="N", help=text)
    text = "lowercase all texts"
    tokenizer.add_argument("--lowercase", action="store_true", help=text)
    tokenizer.set_defaults(command=_tokenizer)


def _tokenizer(options: argparse.Namespace) -> None:
    from multiprune.data.tokenizer import train_tokenizer
    from multiprune.export.checkpoint import check_is_new

    quiet_libraries()
    check_is_new(options.out)
    made = train_tokenizer(
        options.files, kind=options.kind, size=options.size, lowercase=options.lowercase
    )
    made.save_pretrained(options.out)
    print(f"{options.out}: {len(made):,} tokens")
