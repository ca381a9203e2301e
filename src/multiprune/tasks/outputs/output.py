"""The interface of outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import torch

from multiprune.tasks.outputs.heads import USUAL_DROPOUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

    from multiprune.metrics.predicted import Predicted
    from multiprune.runs.predictions import Answers


class Difference(NamedTuple):
    """What of two label spaces is not the same."""

    key: str
    ours: Any
    theirs: Any


@dataclass(frozen=True)
class Prediction:
    """What a task answers to one text, in words; each kind has a frozen dataclass of its own."""


class Request(ABC):
    """Texts that a task is asked about: the rows that an encoder reads, and what logits mean.

    Attributes:
        inputs: of the encoder, by name, a list a row.
    """

    inputs: Mapping[str, Sequence[Any]]

    @abstractmethod
    def predictions(self, logits: Sequence[Tensor]) -> list[Prediction]:
        """Return what the logits of all rows answer to each text.

        Those of a row are of shape (outputs,), or (tokens, outputs) without padding.
        """


class Output(ABC):
    """A kind of answer, and the labels or numbers that are answers in one task.

    It is what the head of a task is for, in training and in a model that was shipped. Whoever adds
    a kind writes one class: nothing outside asks which kind it has.
    """

    #: What records and ``heads.json`` call it.
    kind: ClassVar[str]
    #: Whether there is an answer for each token, rather than for the whole sequence.
    per_token: ClassVar[bool] = False
    #: Whether a text may be a list of words, which are answered one by one.
    reads_words: ClassVar[bool] = False
    #: Whether answers are tokens of the encoder's vocabulary, which then must stay whole.
    over_vocabulary: ClassVar[bool] = False
    #: Whether a model's own answer can stand in place of a label, with a loss that is not zero.
    can_be_label: ClassVar[bool] = True
    #: How a model card reads an answer from ``logits(task, texts)``; ``{task}`` and ``{given}``.
    card_example: ClassVar[str] = ""
    #: How a model card gets the logits, where the head is not one linear layer; likewise.
    card_head: ClassVar[str] = ""

    @property
    @abstractmethod
    def predicted(self) -> Predicted:
        """In which form metrics are given predictions."""

    @property
    @abstractmethod
    def described(self) -> Mapping[str, Any]:
        """What a description says of the answers; ``from_description`` makes the output of it."""

    @classmethod
    @abstractmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Return the output that a description is of, as ``heads.json`` has it.

        Raises:
            LookupError, TypeError, ValueError: if the description lacks what the kind needs.
        """

    @property
    def description(self) -> dict[str, Any]:
        """What is said of the answers beside a head that is shipped."""
        flags = {name: True for name in ("per_token", "reads_words") if getattr(self, name)}
        return {"kind": self.kind, **self.described, **flags}

    @property
    @abstractmethod
    def label_space(self) -> Mapping[str, Any]:
        """What two heads have in common that answer the same."""

    def difference(self, other: Output) -> Difference | None:
        """Return the first thing in which a head of another output answers something else."""
        ours, theirs = self.label_space, other.label_space
        for key in dict.fromkeys((*ours, *theirs)):
            if ours.get(key) != theirs.get(key):
                return Difference(key, ours.get(key), theirs.get(key))
        return None

    @property
    def classes(self) -> Sequence[str]:
        """The classes of which an example has exactly one; none for other kinds."""
        return ()

    @property
    @abstractmethod
    def meaning(self) -> str:
        """What the numbers of the head stand for, as a model card says it."""

    @abstractmethod
    def head(self, encoder: PreTrainedModel, dropout: float = USUAL_DROPOUT) -> nn.Module:
        """Return a new head for an encoder; it is called as ``heads.py`` says."""

    @abstractmethod
    def predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities or values, and the labels to compare them with."""

    def decided(self, predictions: Tensor) -> Tensor:
        """Return the answers that predictions come to: classes, not their probabilities."""
        return predictions

    def as_labels(self, predictions: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Return what was decided in place of ``labels``, which say no more than where."""
        return self.decided(predictions)

    def answers_by_example(self, labels: Tensor) -> Tensor:
        """Return how many answers ``predictions`` gives to each example of a batch."""
        return torch.ones(len(labels), dtype=torch.long, device=labels.device)

    def logits_by_example(self, logits: Tensor, labels: Tensor) -> Sequence[Tensor]:  # noqa: ARG002
        """Return the part of a batch's logits that is each example's."""
        return torch.split(logits, 1)

    def combined(self, answers: Answers) -> Answers:
        """Return the answers to examples, where several encoded rows of each were answered."""
        return answers

    @abstractmethod
    def shown(self, answers: Tensor) -> str:
        """Write the decided answers to one example, or its labels, as a person reads them."""

    def tokenized(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[Any],
        pairs: Sequence[str] | None,
        **options: Any,
    ) -> BatchEncoding:
        """Tokenize texts, or pairs of them, with the options of the tokenizer."""
        encoding: BatchEncoding = tokenizer(texts, pairs, **options)
        return encoding

    @abstractmethod
    def request(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[Any],
        pairs: Sequence[str] | None,
        max_length: int,
    ) -> Request:
        """Return how an encoder reads texts, cut or in windows of ``max_length`` tokens."""
