"""Tokenize words of a document as in running text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer
    from transformers import BatchEncoding, PreTrainedTokenizerBase


def tokenize_words(
    documents: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, **options: Any
) -> BatchEncoding:
    """Tokenize lists of words; each word becomes the tokens that it is behind a space in a text.

    ``options`` are those of the tokenizer.
    """
    if needs_spaces(tokenizer):
        documents = [[spaced(word) for word in words] for words in documents]
    encoding: BatchEncoding = tokenizer(
        [list(words) for words in documents], is_split_into_words=True, **options
    )
    return encoding


def needs_spaces(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a word has other tokens behind a space, as in byte-level BPE, than it has alone.

    The tokenizer itself could put the space there (``add_prefix_space``), but then it would read
    running text in another way, too.
    """
    if not tokenizer.is_fast:
        return False
    # Not tokenized, which would leave settings of cutting and padding behind.
    alone, twice = (_characters(tokenizer.backend_tokenizer, text) for text in ("a", "a a"))
    return twice != alone * 2


def _characters(backend: Tokenizer, text: str) -> str:
    """Return what the tokens of a text are made of."""
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is None:
        return text
    return "".join(part for part, _ in backend.pre_tokenizer.pre_tokenize_str(text))


def spaced(word: str) -> str:
    """Return a word with one space before it; what is nothing but white space stays as it is."""
    return f" {word.lstrip()}" if word.strip() else word
