"""Output of one tag per word."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch.nn import functional
from typing_extensions import override

from multiprune.metrics.predicted import Classes, Predicted
from multiprune.tasks.document import DocumentOfWords
from multiprune.tasks.iob2 import OUTSIDE, marks_spans, spans_of
from multiprune.tasks.labels import Labels
from multiprune.tasks.outputs.heads import USUAL_DROPOUT, TokenHead
from multiprune.tasks.outputs.labelled import LabelledOutput
from multiprune.tasks.outputs.output import Prediction, Request
from multiprune.tasks.rows import IGNORED
from multiprune.tasks.word_labels import tags_of, words_of
from multiprune.tasks.word_windows import word_windows
from multiprune.tasks.words import tokenize_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

    from multiprune.runs.predictions import Answers


@dataclass(frozen=True)
class PredictedSpan:
    """A part of a text, ``text[start:end]``, and what it is."""

    label: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class PredictedTags(Prediction):
    """A tag for each word.

    Attributes:
        words: those that were given, or that a text was split into.
        tags: of the words; of one that was not read ``O``, or None if that is no label.
        probabilities: of the tags; 0 for words that were not read.
        spans: what tags with ``B-`` and ``I-`` mark, by characters of the text, or of the words
            with a space between them where words were given.
    """

    words: Sequence[str]
    tags: Sequence[str | None]
    probabilities: Sequence[float]
    spans: Sequence[PredictedSpan]


@dataclass(frozen=True)
class Tags(LabelledOutput):
    """One of ``labels`` for each word, by its first token.

    Logits are of shape (windows, tokens, labels); labels are those of ``word_labels``, of shape
    (windows, tokens), those of words that are not read behind the tokens. ``overlap`` is how many
    tokens windows share; None cuts documents.
    """

    overlap: int | None

    kind: ClassVar[str] = "tags"
    per_token: ClassVar[bool] = True
    reads_words: ClassVar[bool] = True
    card_example: ClassVar[str] = """\
words = ["A", "text", "to", "try"]
best, ids = logits("{task}", [words])[0].argmax(-1), read("{task}", [words]).word_ids(0)
for number, word in enumerate(words):
    print(word, tasks["{task}"]["labels"][int(best[ids.index(number)])])
"""

    @property
    @override
    def predicted(self) -> Predicted:
        return Classes(len(self.labels))

    @property
    @override
    def described(self) -> Mapping[str, Any]:
        return {**super().described, "overlap": self.overlap}

    @classmethod
    @override
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        return cls(Labels.from_definition(description), description.get("overlap"))

    @override
    def head(self, encoder: PreTrainedModel, dropout: float = USUAL_DROPOUT) -> nn.Module:
        return TokenHead(encoder.config.hidden_size, self.num_outputs, dropout)

    @override
    def predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities of tags for each word, then its place in its document; labels.

        What is not read has one tag for certain.
        """
        tags = tags_of(labels)
        if OUTSIDE in self.labels:
            chosen = torch.full_like(tags, self.labels.index(OUTSIDE))
        else:
            chosen = (tags + 1) % len(self.labels)
        labelled = tags != IGNORED
        # In single precision, for words are many; places are exact up to 2^24.
        probabilities = functional.one_hot(chosen, len(self.labels)).float()
        probabilities[:, : logits.shape[1]] = logits.float().softmax(-1)
        words = words_of(labels)[..., None]
        return torch.cat([probabilities, words], -1)[labelled], tags[labelled]

    @override
    def decided(self, predictions: Tensor) -> Tensor:
        return predictions[:, : len(self.labels)].argmax(-1)

    @override
    def as_labels(self, predictions: Tensor, labels: Tensor) -> Tensor:
        return labels.masked_scatter(labels != IGNORED, self.decided(predictions).to(labels.dtype))

    @override
    def answers_by_example(self, labels: Tensor) -> Tensor:
        return (labels != IGNORED).sum(-1)

    @override
    def combined(self, answers: Answers) -> Answers:
        """Return the answers of all windows, in the order of documents and their words."""
        answers = answers.chosen(answers.predictions[:, -1].argsort(stable=True)).sorted()
        return replace(answers, predictions=answers.predictions[:, :-1])

    @override
    def shown(self, answers: Tensor) -> str:
        return " ".join(self.labels[tag] for tag in answers.tolist())

    @override
    def tokenized(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[Any],
        pairs: Sequence[str] | None,
        **options: Any,
    ) -> BatchEncoding:
        return tokenize_words(
            [DocumentOfWords.of(one).words for one in texts], tokenizer, **options
        )

    @override
    def request(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[Any],
        pairs: Sequence[str] | None,
        max_length: int,
    ) -> Request:
        return TagsRequest(self, tokenizer, [*map(DocumentOfWords.of, texts)], max_length)


class TagsRequest(Request):
    """Documents whose words are tagged, in windows if that is how they were in training."""

    def __init__(
        self,
        output: Tags,
        tokenizer: PreTrainedTokenizerBase,
        documents: Sequence[DocumentOfWords],
        max_length: int,
    ) -> None:
        self.labels, self.documents = output.labels, documents
        self.windows = word_windows(
            [one.words for one in documents],
            tokenizer,
            max_length=max_length,
            overlap=output.overlap,
        )
        self.inputs = self.windows.inputs

    @override
    def predictions(self, logits: Sequence[Tensor]) -> list[Prediction]:
        unread = OUTSIDE if OUTSIDE in self.labels else None
        tags: list[list[str | None]] = [[unread] * len(one.words) for one in self.documents]
        probabilities = [[0.0] * len(one.words) for one in self.documents]
        rows = zip(self.windows.examples, self.windows.words, logits, strict=True)
        for example, words, of_tokens in rows:
            best, which = of_tokens.softmax(-1).max(-1)
            for word, probability, tag in zip(words, best.tolist(), which.tolist(), strict=True):
                if word >= 0:
                    tags[example][word] = self.labels[tag]
                    probabilities[example][word] = probability
        return [
            PredictedTags(one.words, found, sure, self._spans(one, found))
            for one, found, sure in zip(self.documents, tags, probabilities, strict=True)
        ]

    def _spans(self, document: DocumentOfWords, tags: Sequence[str | None]) -> list[PredictedSpan]:
        if not marks_spans(self.labels):
            return []
        found = []
        for kind, first, after in spans_of([tag or OUTSIDE for tag in tags]):
            start, end = document.starts[first], document.ends[after - 1]
            found.append(PredictedSpan(kind, document.text[start:end], start, end))
        return sorted(found, key=lambda one: one.start)
