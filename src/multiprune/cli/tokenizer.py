"""The command that makes a tokenizer from texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.quiet import quiet_libraries

if TYPE_CHECKING:
    import argparse

    from multiprune.cli import Commands


def add_tokenizer_command(commands: Commands) -> None:
    """Add ``tokenizer``."""
    tokenizer = commands.add_parser(
        "tokenizer",
        help="make a tokenizer from texts",
        description="Make a tokenizer from text files, one text a line, or parquet files with a "
        "column `text`: WordPiece with the special tokens of BERT, or byte-level BPE with those "
        "of RoBERTa. The same texts give the same tokenizer.",
    )
    tokenizer.add_argument("files", type=Path, nargs="+", metavar="FILE")
    tokenizer.add_argument("--out", type=Path, required=True, help="new folder")
    tokenizer.add_argument("--kind", default="wordpiece", help="wordpiece (default) or bpe")
    text = "tokens at most, special ones included (default: %(default)s)"
    tokenizer.add_argument("--size", type=int, default=8000, metavar="N", help=text)
    text = "make no difference between small and capital letters"
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
