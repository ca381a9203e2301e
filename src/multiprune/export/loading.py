"""A shipped model, ready to answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from multiprune.export.checkpoint import load_encoder, load_heads, model_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ShippedModel(nn.Module):
    """An encoder with the heads of its tasks and its tokenizer.

    Attributes:
        meaning: by task, what its outputs mean (``heads.json``).
    """

    def __init__(
        self,
        encoder: PreTrainedModel,
        heads: nn.ModuleDict,
        meaning: Mapping[str, Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        super().__init__()
        self.encoder: PreTrainedModel = encoder
        self.heads = heads
        self.meaning = dict(meaning)
        self.tokenizer = tokenizer

    @override
    def forward(self, task: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of a task: (examples, outputs), or (examples, tokens, outputs)."""
        if task not in self.heads:
            raise ValueError(f"The task must be one of {', '.join(self.heads)}, but is {task!r}.")
        states = self.encoder(**inputs).last_hidden_state
        logits: Tensor = self.heads[task](states, inputs["attention_mask"])
        return logits

    @torch.no_grad()
    def logits(self, task: str, texts: Sequence[Any], pairs: Sequence[str] | None = None) -> Tensor:
        """Tokenize texts (lists of words, for tags), or pairs of them, and return their logits."""
        words = self.meaning.get(task, {}).get("kind") == "tags"
        inputs = self.tokenizer(
            list(texts),
            None if pairs is None else list(pairs),
            is_split_into_words=words,
            truncation=True,
            padding=True,
            return_tensors="pt",
        ).to(self.encoder.device)
        return self(task, inputs)  # type: ignore[no-any-return]


def load(path: str | Path) -> ShippedModel:
    """Load the model of a finished run, or an exported one; no code from the folder is run.

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: if a file is damaged, or weights have not the shapes that ``config.json`` names.
    """
    from transformers import AutoTokenizer

    folder = model_folder(Path(path))
    heads, meaning = load_heads(folder)
    return ShippedModel(
        load_encoder(folder), heads, meaning, AutoTokenizer.from_pretrained(folder)
    ).eval()
