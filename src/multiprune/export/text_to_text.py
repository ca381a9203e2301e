"""Inference with an exported encoder-decoder that answers in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import override

from multiprune.export.checkpoint import MEANING, load_meaning
from multiprune.export.shipped import ShippedModel, load_tokenizer
from multiprune.models.task_heads import TaskHeads
from multiprune.models.text_to_text import LabelWords
from multiprune.tasks.labels import Labels
from multiprune.tasks.outputs.worded_class import WordedClass, Wording
from multiprune.tasks.text_to_text import label_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from multiprune.export.given_texts import Texts
    from multiprune.tasks.outputs.output import Output, Request


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
    def output(self, task: str) -> Output:
        return WordedClass(Labels.from_definition(self.meaning[task]), self.wordings[task])

    @override
    def encoder_inputs(self, task: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        self.check_task(task)
        head = self.heads[task]
        assert isinstance(head, LabelWords)
        return head.inputs_of(self.encoder, inputs)

    @override
    @torch.no_grad()
    def logits(self, task: str, texts: Texts, pairs: str | Sequence[str] | None = None) -> Tensor:
        """Put texts, or pairs of them, into the template of a task, and return their logits."""
        first, second = self._given(task, texts, pairs)
        inputs = self.tokenizer(
            self._filled(task, first, second),
            truncation=True,
            max_length=self.max_length(task),
            padding=True,
            return_tensors="pt",
        ).to(self.encoder.device)
        return self(task, inputs)  # type: ignore[no-any-return]

    @override
    def request(self, task: str, texts: Sequence[Any], pairs: Sequence[str] | None) -> Request:
        return super().request(task, self._filled(task, texts, pairs), None)

    @override
    def logits_by_task(
        self, tasks: Sequence[str], inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        return {task: self(task, inputs) for task in tasks}

    @override
    def tasks_of_one_encoder(self, tasks: Sequence[str]) -> list[list[str]]:
        """Return each task by itself: each puts texts into words of its own."""
        return [[task] for task in tasks]

    def _filled(self, task: str, texts: Sequence[Any], pairs: Sequence[str] | None) -> list[str]:
        columns = self.meaning[task]["text"]
        rows = zip(*([texts] if pairs is None else [texts, pairs]), strict=True)
        return [self.wordings[task].filled(dict(zip(columns, row, strict=True))) for row in rows]


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
