"""Shared parts of outputs with one prediction per text or text pair."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from multiprune.tasks.outputs.heads import USUAL_DROPOUT, SequenceHead
from multiprune.tasks.outputs.output import Output, Prediction, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class SequenceOutput(Output):
    """Answers once a sequence, by one linear layer of ``num_outputs``."""

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """The number of outputs of the head."""

    @abstractmethod
    def prediction(self, logits: Tensor) -> Prediction:
        """Return what logits of shape (outputs,) answer."""

    @override
    def head(self, encoder: PreTrainedModel, dropout: float = USUAL_DROPOUT) -> nn.Module:
        return SequenceHead(encoder.config.hidden_size, self.num_outputs, dropout)

    @override
    def request(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[Any],
        pairs: Sequence[str] | None,
        max_length: int,
    ) -> Request:
        return SequenceRequest(self, tokenizer, texts, pairs, max_length)


class SequenceRequest(Request):
    """Texts, or pairs of them, that are answered as a whole."""

    def __init__(
        self,
        output: SequenceOutput,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        max_length: int,
    ) -> None:
        self.output = output
        encoding = tokenizer(
            list(texts),
            None if pairs is None else list(pairs),
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
        self.inputs = {name: list(values) for name, values in encoding.items()}

    @override
    def predictions(self, logits: Sequence[Tensor]) -> list[Prediction]:
        return [self.output.prediction(one) for one in logits]
