"""Load a pretrained tokenizer, with a token for padding."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def pretrained_tokenizer(
    source: str | Path, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or the hub.

    Raises:
        OSError: if ``source`` cannot be read.
        ValueError: if it holds no tokenizer, or one that needs a package which is missing, or code
            of its own.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, trust_remote_code=trust_remote_code
        )
    except OSError:
        raise
    except Exception as error:
        # The libraries raise whatever they come across first.
        raise ValueError(_reason(str(source), error)) from error
    special = set(tokenizer.all_special_tokens)
    # Without files, the library makes a tokenizer that knows no words, and does not say so.
    if not any(token.strip("▁") for token in tokenizer.get_vocab().keys() - special):
        raise ValueError(f"{source} holds no vocabulary; save the tokenizer beside the model.")
    return tokenizer


def ensure_padding(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Let a tokenizer without a token for padding pad with another, and say so.

    Raises:
        ValueError: if it has none that can stand for it.
    """
    if tokenizer.pad_token is not None:
        return
    padding = tokenizer.eos_token or tokenizer.sep_token or tokenizer.unk_token
    if padding is None:
        raise ValueError(
            f"The tokenizer in {source} has no token for padding, and neither an end token nor an "
            "unknown token that can stand for it; set its `pad_token`."
        )
    tokenizer.pad_token = padding
    log.info("The tokenizer in %s has no token for padding: %s is used.", source, padding)


def _reason(source: str, error: Exception) -> str:
    text = str(error)
    needs_sentencepiece = "tiktoken" in text or "sentencepiece" in text.lower()
    if needs_sentencepiece and find_spec("sentencepiece") is None:
        return (
            f"The tokenizer in {source} is read with sentencepiece, which is not installed: "
            "pip install 'multiprune[sentencepiece]'."
        )
    if "trust_remote_code" in text:
        return f"The tokenizer in {source} needs code of its own, and `trust_remote_code`."
    if isinstance(error, KeyError):
        return f"The tokenizer in {source} cannot be loaded: its files have no {error}."
    reason = next(iter(text.splitlines()), "")
    return f"The tokenizer in {source} cannot be loaded: {type(error).__name__}: {reason}"
