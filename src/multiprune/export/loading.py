"""A shipped model, ready to answer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from multiprune.export.checkpoint import (
    is_packed,
    load_encoder,
    load_heads,
    model_folder,
    save_encoder,
    save_heads,
)
from multiprune.models.encoder import Encoder
from multiprune.models.heads import logits_of
from multiprune.models.task_heads import TaskHeads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase


#: Holds the order in which units go, beside a model of many sizes.
SIZES = "sizes.safetensors"


class ShippedModel(nn.Module):
    """An encoder with the heads of its tasks and its tokenizer.

    Attributes:
        meaning: by task, what its outputs mean (``heads.json``).
    """

    def __init__(
        self,
        encoder: PreTrainedModel,
        heads: TaskHeads,
        meaning: Mapping[str, Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        super().__init__()
        self.encoder: PreTrainedModel = encoder
        self.heads = heads
        self.meaning = dict(meaning)
        self.tokenizer = tokenizer

    @override
    def forward(
        self, task: str, inputs: Mapping[str, Tensor], labels: Tensor | None = None
    ) -> Tensor:
        """Return the logits of a task: (examples, outputs), or (examples, tokens, outputs).

        Over the vocabulary and with ``labels``: (labelled tokens, words), as ``logits_of`` has it.
        """
        self.check_task(task)
        return logits_of(self.encoder, self.heads[task], inputs, labels)

    def encoder_inputs(self, task: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return what the encoder reads to answer a task."""
        self.check_task(task)
        return inputs

    def check_task(self, task: str) -> None:
        """Raise a ValueError if the model does not know a task."""
        if task not in self.heads:
            raise ValueError(f"The task must be one of {', '.join(self.heads)}, but is {task!r}.")

    def only(self, task: str) -> ShippedModel:
        """Return a copy that knows one of its tasks."""
        copied = copy.deepcopy(self, {id(self.tokenizer): self.tokenizer})
        copied.heads = TaskHeads({task: copied.heads[task]})
        copied.meaning = {task: copied.meaning[task]}
        return copied.eval()

    def save(self, folder: Path) -> None:
        """Write the model into a folder that exists, as it is shipped."""
        save_encoder(folder, self.encoder)
        save_heads(folder, self.heads, self.meaning)
        self.tokenizer.save_pretrained(folder)

    @torch.no_grad()
    def logits(self, task: str, texts: Sequence[Any], pairs: Sequence[str] | None = None) -> Tensor:
        """Tokenize texts (lists of words, for tags), or pairs of them, and return their logits."""
        words = self.meaning.get(task, {}).get("kind") == "tags"
        inputs = self.tokenizer(
            list(texts),
            None if pairs is None else list(pairs),
            is_split_into_words=words,
            truncation=True,
            max_length=Encoder(self.encoder, self.tokenizer).max_length,
            padding=True,
            return_tensors="pt",
        ).to(self.encoder.device)
        return self(task, inputs)  # type: ignore[no-any-return]


def load(path: str | Path, *, trust_remote_code: bool = False) -> ShippedModel:
    """Load the model of a finished run, or an exported one.

    Code that was published with its encoder is run with ``trust_remote_code`` only.
    Several that were packed are one ``multiprune.export.switching.PackedModel``, and one of many
    sizes is a ``multiprune.export.dynamic.DynamicModel``.

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: if a file is damaged, or weights have not the shapes that ``config.json`` names.
    """
    if is_packed(Path(path)):
        # Imported late: it is made from what is here.
        from multiprune.export.switching import load_packed

        return load_packed(Path(path))
    folder = model_folder(Path(path))
    if (folder / SIZES).is_file():
        from multiprune.export.dynamic import load_dynamic

        return load_dynamic(folder)
    encoder = load_encoder(folder, trust_remote_code=trust_remote_code)
    if encoder.config.is_encoder_decoder:
        from multiprune.export.text_to_text import shipped_text_to_text

        return shipped_text_to_text(folder, encoder)
    heads, meaning = load_heads(folder, encoder.config.hidden_size)
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    return ShippedModel(encoder, heads, meaning, tokenizer).eval()


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a shipped folder; its own code is run if that is trusted.

    Raises:
        ValueError: if files are damaged or missing.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        # The libraries raise whatever they come across first.
        reason = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"{folder} must hold a tokenizer, but: {type(error).__name__} {reason}."
        ) from error
    # Without it, the library makes a tokenizer that knows no words, and does not say so.
    if tokenizer.is_fast and not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder} must hold a tokenizer, but tokenizer.json is missing.")
    return tokenizer
