"""Texts that one task is asked about: the rows that an encoder reads, and what logits mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import override

from multiprune.export.given_texts import DocumentOfWords
from multiprune.export.predictions import (
    PredictedAnswer,
    PredictedLabel,
    PredictedLabels,
    PredictedNumber,
    PredictedSpan,
    PredictedTags,
)
from multiprune.tasks.question_answering import best_spans
from multiprune.tasks.spans import marks_spans, spans_of
from multiprune.tasks.tagging import OUTSIDE
from multiprune.tasks.windows import context_windows
from multiprune.tasks.word_windows import word_windows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from multiprune.export.predictions import Prediction

#: By name of the encoder's input, a list for each row.
Inputs = dict[str, list[Any]]


class Request(ABC):
    """Texts and a task.

    Attributes:
        inputs: of the encoder, by name, a list a row.
    """

    inputs: Inputs

    @abstractmethod
    def predictions(self, logits: Sequence[Tensor]) -> list[Prediction]:
        """Return what the logits of all rows answer to each text."""


def request_for(
    meaning: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Any],
    pairs: Sequence[str] | None,
    max_length: int,
) -> Request:
    """Return what a task is asked, by the kind that its meaning says it is of."""
    if meaning["kind"] == "tags":
        documents = [DocumentOfWords.of(one) for one in texts]
        return TagsRequest(meaning, tokenizer, documents, max_length)
    if meaning["kind"] == "span":
        return AnswerRequest(meaning, tokenizer, texts, pairs or [], max_length)
    return SequenceRequest(meaning, tokenizer, texts, pairs, max_length)


class SequenceRequest(Request):
    """Texts, or pairs of them, that are answered as a whole."""

    def __init__(
        self,
        meaning: Mapping[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        max_length: int,
    ) -> None:
        self.meaning = meaning
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
        return [self._prediction(one) for one in logits]

    def _prediction(self, logits: Tensor) -> Prediction:
        if "bounds" in self.meaning:
            low, high = self.meaning["bounds"]
            return PredictedNumber((float(logits[0]) * (high - low) + low + high) / 2)
        labels: list[str] = self.meaning["labels"]
        is_set = self.meaning["kind"] == "sets"
        values = (logits.sigmoid() if is_set else logits.softmax(-1)).tolist()
        probabilities = dict(zip(labels, values, strict=True))
        if not is_set:
            return PredictedLabel(labels[int(logits.argmax())], probabilities)
        present = zip(labels, (logits > 0).tolist(), strict=True)
        return PredictedLabels([label for label, one in present if one], probabilities)


class TagsRequest(Request):
    """Documents whose words are tagged, in windows if that is how they were in training."""

    def __init__(
        self,
        meaning: Mapping[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        documents: Sequence[DocumentOfWords],
        max_length: int,
    ) -> None:
        self.labels: list[str] = meaning["labels"]
        self.documents = documents
        self.windows = word_windows(
            [one.words for one in documents],
            tokenizer,
            max_length=max_length,
            overlap=meaning.get("overlap"),
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


class AnswerRequest(Request):
    """Questions whose answers are parts of contexts, which are read in windows."""

    def __init__(
        self,
        meaning: Mapping[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        questions: Sequence[str],
        contexts: Sequence[str],
        max_length: int,
    ) -> None:
        self.contexts, self.answer_length = contexts, int(meaning["answer_length"])
        self.windows = context_windows(
            questions,
            contexts,
            [None] * len(contexts),
            tokenizer,
            max_length=max_length,
            overlap=meaning["overlap"],
            question_length=meaning["question_length"],
        )
        self.inputs = self.windows.inputs

    @override
    def predictions(self, logits: Sequence[Tensor]) -> list[Prediction]:
        best: dict[int, tuple[float, int, int]] = {}
        rows = zip(self.windows.examples, self.windows.labels, logits, strict=True)
        for example, labels, of_tokens in rows:
            characters = torch.as_tensor(labels).view(1, -1, 2)[:, 2:].long()
            (found,) = best_spans(of_tokens[None], characters, self.answer_length).tolist()
            if example not in best or found[0] > best[example][0]:
                best[example] = (found[0], int(found[1]), int(found[2]))
        return [
            PredictedAnswer(context[start:end], start, end, score)
            for context, (score, start, end) in zip(
                self.contexts, (best[place] for place in range(len(self.contexts))), strict=True
            )
        ]
