"""A tiny T5 with a tokenizer of the embedded tasks' words, and tasks put in words."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

import torch
from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.models.encoder import Encoder
from multiprune.tasks.classification import Classification
from multiprune.tasks.synthetic import WORDS

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.tasks.task import Task

COMMON: dict[str, Any] = {
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
TASKS: dict[str, Task] = {
    "classes": Classification(
        text=["sentence"],
        labels=["bad", "good", "fair"],
        label_words=["red", "blue", "so"],
        **COMMON,
    ),
    "pairs": Classification(text=["premise", "hypothesis"], labels=["no", "yes"], **COMMON),
}
SENTENCES = ["the cat runs", "the red dog chased one cat"]
PAIRS = ["one dog", "the dog runs"]


def tiny_tokenizer() -> T5Tokenizer:
    """Make a Unigram tokenizer; other words are split into characters."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    characters = [(one, -9.0) for one in [*string.ascii_lowercase, *string.digits, ":", "_"]]
    words = [(f"▁{word}", -3.0) for word in WORDS]
    return T5Tokenizer(vocab=[*special, *characters, *words], extra_ids=0, model_max_length=128)


def tiny_t5(*, gated: bool = False, seed: int = 0, **sizes: Any) -> Encoder:
    """Make a T5 of two layers a stack, or one of version 1.1, and its tokenizer."""
    tokenizer = tiny_tokenizer()
    shape: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 12, "num_layers": 2, "num_heads": 2}
    shape["decoder_start_token_id"] = 0
    version: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    config = T5Config(
        **shape | sizes | (version if gated else {}), vocab_size=len(tokenizer), dropout_rate=0.0
    )
    torch.manual_seed(seed)
    return Encoder(T5ForConditionalGeneration(config), tokenizer)


def saved_t5(folder: Path, **options: Any) -> str:
    """Write a tiny T5 to a folder, as one of the hub is."""
    encoder = tiny_t5(**options)
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return str(folder)
