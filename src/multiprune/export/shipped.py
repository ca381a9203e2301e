"""Inference with an exported model and its tokenizer."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from multiprune.export.answering import predicted
from multiprune.export.checkpoint import save_encoder, save_heads
from multiprune.export.given_texts import columns_given
from multiprune.message import first_line
from multiprune.models.beside import states_of
from multiprune.models.encoder import Encoder
from multiprune.models.heads import logits_at, logits_of
from multiprune.models.task_heads import TaskHeads
from multiprune.tasks.outputs.described import output_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from multiprune.export.given_texts import Texts
    from multiprune.tasks.outputs.output import Output, Prediction, Request


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

    def output(self, task: str) -> Output:
        """Return what a task answers with."""
        return output_from(self.meaning[task])

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
    def logits(self, task: str, texts: Texts, pairs: str | Sequence[str] | None = None) -> Tensor:
        """Return the logits of texts, or of pairs of them, each cut to the length of training.

        What answers tokens reads its first window alone: ``predict`` reads all of them. For tags, a
        text may be a list of words.
        """
        first, second = self._given(task, texts, pairs)
        options: dict[str, Any] = {
            "truncation": True,
            "max_length": self.max_length(task),
            "padding": True,
            "padding_side": "right",
            "return_tensors": "pt",
        }
        inputs = self.output(task).tokenized(self.tokenizer, first, second, **options)
        return self(task, inputs.to(self.encoder.device))  # type: ignore[no-any-return]

    def predict(
        self,
        task: str,
        texts: Texts,
        pairs: str | Sequence[str] | None = None,
        *,
        batch_size: int = 32,
    ) -> list[Prediction]:
        """Return what a task answers to each text, or pair of texts: names, numbers or spans.

        For tags, a text may be a list of words; a string is split at white space, and at signs
        before and behind words. Long texts are read in windows by tasks that were trained so, and
        cut to the length of training by others.

        Raises:
            TypeError: if something is no text.
            ValueError: if the model does not know the task, or the task reads something else.
        """
        first, second = self._given(task, texts, pairs)
        if self.output(task).over_vocabulary:
            raise ValueError(f"{task} predicts tokens of the vocabulary: use `logits`.")
        return predicted(self, [task], first, second, batch_size)[task]

    def predict_all(
        self, texts: Texts, pairs: str | Sequence[str] | None = None, *, batch_size: int = 32
    ) -> dict[str, list[Prediction]]:
        """Return by name what all tasks answer that read one text, or pairs if there are some.

        A text that several tasks read alike goes through the encoder once.

        Raises:
            TypeError: if something is no text.
            ValueError: if no task reads that.
        """
        given = 1 if pairs is None else 2
        tasks = [
            name
            for name, meaning in self.meaning.items()
            if not self.output(name).over_vocabulary and len(meaning["text"]) == given
        ]
        if not tasks:
            raise ValueError(
                f"None of the tasks {', '.join(self.meaning)} answers "
                f"{'a single text' if given == 1 else 'pairs of texts'} by name."
            )
        found: dict[str, list[Prediction]] = {}
        for task in tasks:
            first, second = self._given(task, texts, pairs)
        for alike in self.tasks_of_one_encoder(tasks):
            found |= predicted(self, alike, first, second, batch_size)
        return {task: found[task] for task in tasks}

    def request(self, task: str, texts: Sequence[Any], pairs: Sequence[str] | None) -> Request:
        """Return how the encoder reads texts for a task."""
        return self.output(task).request(self.tokenizer, texts, pairs, self.max_length(task))

    def logits_by_task(
        self, tasks: Sequence[str], inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the logits of several tasks from one pass of the encoder."""
        states = states_of(self.encoder, inputs)
        return {task: logits_at(states, self.encoder, self.heads[task], inputs) for task in tasks}

    def tasks_of_one_encoder(self, tasks: Sequence[str]) -> list[list[str]]:
        """Return tasks in groups for which the encoder has the same weights."""
        return [list(tasks)]

    def max_length(self, task: str) -> int:
        """Return to how many tokens a task's texts were cut in training, if there are positions."""
        positions = Encoder(self.encoder, self.tokenizer).max_length
        return min(positions, int(self.meaning[task].get("max_length", positions)))

    def _given(
        self, task: str, texts: Texts, pairs: str | Sequence[str] | None
    ) -> tuple[list[Any], list[str] | None]:
        self.check_task(task)
        words = self.output(task).reads_words
        return columns_given(task, self.meaning[task]["text"], texts, pairs, words=words)


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
        reason = first_line(error)
        raise ValueError(
            f"The tokenizer in {folder} cannot be loaded: {type(error).__name__} {reason}."
        ) from error
    # Without it, the library makes a tokenizer that knows no words, and does not say so.
    if tokenizer.is_fast and not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder} has no tokenizer.json.")
    return tokenizer
