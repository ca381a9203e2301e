"""An encoder-decoder as a multitask model, which picks the likeliest label words."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from typing_extensions import override

from multiprune.models.multitask import MultitaskModel
from multiprune.tasks.text_to_text import WordedClassification

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.tasks.shared_batch import SharedBatch
    from multiprune.tasks.task import Task


class LabelWords(nn.Module):
    """Scores the words of all labels of a task by their log-probability, in one pass.

    The decoder reads the words of all labels behind each other, and each token attends to those
    before it within its own label. As positions are relative, that is what it reads of each label
    alone, and the text is encoded, and turned to keys and values, once for all of them.

    Args:
        tokens: of every label, the end of the sequence last.
        start: the token that the decoder starts with.
    """

    label: Int64[Tensor, "tokens"]
    inputs: Int64[Tensor, "tokens"]
    targets: Int64[Tensor, "tokens"]

    def __init__(self, tokens: Sequence[Sequence[int]], start: int) -> None:
        super().__init__()
        self.lengths = [len(one) for one in tokens]
        inputs = [[start, *one[:-1]] for one in tokens]
        label = torch.arange(len(tokens)).repeat_interleave(torch.tensor(self.lengths))
        buffers = {
            "inputs": torch.tensor([*chain(*inputs)]),
            "targets": torch.tensor([*chain(*tokens)]),
            "label": label,
        }
        for name, buffer in buffers.items():
            # They are made from the task: no checkpoint holds them.
            self.register_buffer(name, buffer, persistent=False)

    @override
    def forward(self, model: Any, inputs: Mapping[str, Tensor]) -> Float[Tensor, "examples labels"]:
        """Return log-probabilities from an encoder-decoder."""
        scores = model(**self.inputs_of(model, inputs), use_cache=False).logits.float()
        targets = self.targets.expand(len(scores), -1).unsqueeze(-1)
        by_token = scores.gather(-1, targets).squeeze(-1) - scores.logsumexp(-1)
        return torch.stack([one.sum(1) for one in by_token.split(self.lengths, 1)], 1)

    def inputs_of(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what an encoder-decoder reads to score the words of all labels for texts."""
        examples = len(inputs["input_ids"])
        return {
            "input_ids": inputs["input_ids"],
            "attention_mask": inputs["attention_mask"],
            "decoder_input_ids": self.inputs.expand(examples, -1),
            "decoder_attention_mask": self._mask(model.dtype).expand(examples, 1, -1, -1),
        }

    def _mask(self, dtype: torch.dtype) -> Float[Tensor, "1 1 tokens tokens"]:
        """Return what is added to attention."""
        same = self.label[:, None] == self.label[None]
        hidden = ~same.tril()
        mask = torch.zeros_like(hidden, dtype=dtype)
        return mask.masked_fill(hidden, torch.finfo(dtype).min)[None, None]


class TextToTextModel(MultitaskModel):
    """Sends the text of a task to an encoder-decoder, and scores the words of its labels.

    There are no heads to train: ``encoder`` is all of the model.
    """

    @override
    def head_for(self, task: Task) -> nn.Module:
        assert isinstance(task, WordedClassification)
        return LabelWords(task.wording.tokens, self.encoder.config.decoder_start_token_id)

    @override
    def logits_by_task(self, batch: SharedBatch) -> dict[str, Tensor]:
        """Return the log-probabilities of the labels of tasks, each (examples, labels)."""
        return {
            name: self.heads[name](self.encoder, one.inputs) for name, one in batch.batches.items()
        }
