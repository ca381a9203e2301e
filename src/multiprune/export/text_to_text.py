"""A shipped encoder-decoder, ready to answer with the likeliest words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import override

from multiprune.export.checkpoint import MEANING, load_meaning
from multiprune.export.loading import ShippedModel, load_tokenizer
from multiprune.models.encoder import Encoder
from multiprune.models.task_heads import TaskHeads
from multiprune.models.text_to_text import LabelWords
from multiprune.tasks.text_to_text import Wording, label_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ShippedTextToText(ShippedModel):
    """An encoder-decoder with the words of its tasks' labels and its tokenizer.

    ``heads`` score those words; they have no weights. Logits are log-probabilities of words.
    """

    def __init__(
        self,
        encoder: PreTrainedModel,
        wordings: Mapping[str, Wording],
        meaning: Mapping[str, Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        start: int = encoder.config.decoder_start_token_id
        heads = {name: LabelWords(one.tokens, start) for name, one in wordings.items()}
        super().__init__(encoder, TaskHeads(heads), meaning, tokenizer)
        self.wordings = dict(wordings)

    @override
    def forward(
        self, task: str, inputs: Mapping[str, Tensor], labels: Tensor | None = None
    ) -> Tensor:
        self.check_task(task)
        logits: Tensor = self.heads[task](self.encoder, inputs)
        return logits

    @override
    def encoder_inputs(self, task: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        self.check_task(task)
        head = self.heads[task]
        assert isinstance(head, LabelWords)
        return head.inputs_of(self.encoder, inputs)

    @override
    @torch.no_grad()
    def logits(self, task: str, texts: Sequence[Any], pairs: Sequence[str] | None = None) -> Tensor:
        """Put texts, or pairs of them, into the template of a task, and return their logits."""
        self.check_task(task)
        columns = self.meaning[task]["text"]
        given = [texts] if pairs is None else [texts, pairs]
        if len(given) != len(columns):
            raise ValueError(
                f"The task {task!r} reads {', '.join(columns)}, but was given {len(given)} list(s) "
                "of texts."
            )
        rows = zip(*given, strict=True)
        filled = [self.wordings[task].filled(dict(zip(columns, row, strict=True))) for row in rows]
        inputs = self.tokenizer(
            filled,
            truncation=True,
            max_length=Encoder(self.encoder, self.tokenizer).max_length,
            padding=True,
            return_tensors="pt",
        ).to(self.encoder.device)
        return self(task, inputs)  # type: ignore[no-any-return]


def shipped_text_to_text(folder: Path, encoder: PreTrainedModel) -> ShippedTextToText:
    """Load what a shipped folder holds beside an encoder-decoder.

    Raises:
        ValueError: if a file is damaged, or does not say how tasks are put in words.
    """
    tokenizer, meaning = load_tokenizer(folder), load_meaning(folder)
    try:
        wordings = {
            name: Wording(
                one["template"], one["words"], label_tokens(name, one["words"], tokenizer)
            )
            for name, one in meaning.items()
        }
    except (LookupError, TypeError) as error:
        raise ValueError(
            f"{folder / MEANING} must hold a template and words for each task, but: {error!r}."
        ) from error
    return ShippedTextToText(encoder, wordings, meaning, tokenizer).eval()


def check_is_encoder(model: ShippedModel, purpose: str) -> None:
    """Raise a ValueError, which names a purpose, if a model is an encoder-decoder."""
    if isinstance(model, ShippedTextToText):
        raise ValueError(
            f"{purpose} must be an encoder with heads, but is a {type(model.encoder).__name__}."
        )
