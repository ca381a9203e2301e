"""Extractive question answering with overlapping windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn import functional
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.tasks.answer_text import squad
from multiprune.tasks.columns import row_slices
from multiprune.tasks.languages import languages_of
from multiprune.tasks.losses import no_loss
from multiprune.tasks.outputs.span import NEVER, AnswerSpan
from multiprune.tasks.rows import EXAMPLE, IGNORED, Rows
from multiprune.tasks.soft_targets import softened_divergence
from multiprune.tasks.task import Compared, Task
from multiprune.tasks.windows import Spans, context_windows, longest_question

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from multiprune.runs.predictions import Answers

#: Takes a text and its language, and returns what is compared.
Normalization = Callable[[str, str | None], str]


@dataclass(kw_only=True)
class QuestionAnswering(Task):
    """Chooses the span of a context that answers a question.

    The text columns are question and context; the label column holds, for each row, a list of one
    or more right answers. The first is what is learned, the best of them what counts. In a window
    without it the model learns to point at the first token. The answer to an example is the span
    with the largest sum of both logits in any of its windows.

    Attributes:
        label_start: the column of the characters where the right answers start, a list a row.
        normalize: what is done to answers before they are compared.
        overlap: tokens of a context that neighbouring windows share; at most half of a window.
        question_length: tokens of a question that are read.
        answer_length: tokens that an answer may have.
        longest_question: tokens of the longest of all questions; known while rows are encoded in
            parts.
    """

    label_start: str
    normalize: Normalization
    overlap: int = 128
    question_length: int = 64
    answer_length: int = 30
    longest_question: int | None = None

    text_columns: ClassVar[Sequence[int]] = (2,)
    described_as: ClassVar[str] = AnswerSpan.kind
    usual_metrics: ClassVar[Sequence[str]] = ("answer_f1", "exact_match")

    @classmethod
    @override
    def described_settings(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        names = ("label_start", "overlap", "question_length", "answer_length")
        return {**{name: description[name] for name in names}, "normalize": squad}

    @property
    @override
    def description(self) -> dict[str, Any]:
        return {**super().description, "label_start": self.label_start}

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("overlap", self.overlap, at_least=0, whole=True)
        check_number("question_length", self.question_length, at_least=1, whole=True)
        check_number("answer_length", self.answer_length, at_least=1, whole=True)
        languages: Sequence[str | None] = self.languages or [None]
        for language in languages:
            # Refuses languages that it does not know before training.
            self.normalize("", language)

    @property
    @override
    def output(self) -> AnswerSpan:
        return AnswerSpan(self.overlap, self.question_length, self.answer_length)

    @property
    @override
    def cache_key(self) -> Mapping[str, Any]:
        windows = {"overlap": self.overlap, "question_length": self.question_length}
        return {**super().cache_key, "label_start": self.label_start, **windows}

    @property
    @override
    def marks_unlabelled(self) -> bool:
        return False

    @property
    @override
    def label_columns(self) -> Sequence[str]:
        return (self.label, self.label_start)

    @override
    def encode_labels(self, rows: Rows) -> list[Any]:
        """Return the characters where the first answer of each row starts and ends."""
        columns = (self.text[1], self.label, self.label_start)
        values = zip(*(rows.table[column][:] for column in columns), strict=True)
        return [
            _first_span(context, answers, starts, f"row {row} of {rows.origin}")
            for row, (context, answers, starts) in enumerate(values, rows.first)
        ]

    @override
    def encode_parts(
        self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[tuple[dict[str, list[Any]], int]]:
        longest = 0
        for part in row_slices(rows):
            self.check_columns(part)
            questions = part.table[self.text[0]][:]
            longest = max(longest, longest_question(questions, tokenizer, self.question_length))
        knowing = replace(self, longest_question=longest)
        yield from super(QuestionAnswering, knowing).encode_parts(rows, tokenizer, max_length)

    @override
    def encode(
        self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> tuple[dict[str, list[Any]], int]:
        self.check_columns(rows)
        spans: Spans = self.encode_labels(rows)
        questions, contexts = (rows.table[column][:] for column in self.text)
        windows = context_windows(
            questions,
            contexts,
            spans,
            tokenizer,
            max_length=max_length,
            overlap=self.overlap,
            question_length=self.question_length,
            longest=self.longest_question,
        )
        return {**windows.inputs, EXAMPLE: windows.examples, "labels": windows.labels}, windows.cut

    @override
    def label_tensor(self, labels: Sequence[Any], length: int) -> Tensor:
        padded = torch.full((len(labels), length + 2, 2), IGNORED)
        for row, numbers in enumerate(labels):
            pairs = torch.as_tensor(numbers).view(-1, 2)
            padded[row, : len(pairs)] = pairs
        return padded

    @override
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of starts and ends over the tokens, the mean of both."""
        if not len(labels):
            return no_loss(logits)
        starts_and_ends = _of_tokens(logits, labels).transpose(1, 2).flatten(0, 1)
        return functional.cross_entropy(starts_and_ends, labels[:, 0].flatten())

    @override
    def distillation_loss(
        self, logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float
    ) -> Tensor:
        student, expected = (
            _of_tokens(one, labels).transpose(1, 2).flatten(0, 1) for one in (logits, teacher)
        )
        return softened_divergence(student, expected, temperature)

    @property
    @override
    def compares_rows(self) -> bool:
        return True

    @override
    def compared(self, answers: Answers, rows: Rows | None) -> Compared:
        """Return the answers in words, and lists of right ones, all normalised."""
        assert rows is not None
        contexts, right = rows.table[self.text[1]][:], rows.table[self.label][:]
        languages: Sequence[str | None] = [None] * len(contexts)
        if self.languages:
            languages = languages_of(rows, self.languages)
        predicted, labels = [], []
        for row, (start, end) in zip(
            answers.examples.tolist(), answers.predictions.tolist(), strict=True
        ):
            predicted.append(self.normalize(contexts[row][start:end], languages[row]))
            labels.append([self.normalize(one, languages[row]) for one in right[row]])
        return Compared(predicted, labels, answers.examples)


def _of_tokens(logits: Tensor, labels: Tensor) -> Tensor:
    """Return logits of tokens, where those of padding are never chosen."""
    return logits.float().masked_fill(labels[:, 2:, :1] == IGNORED, NEVER)


def _first_span(
    context: str, answers: Sequence[str], starts: Sequence[int], where: str
) -> tuple[int, int]:
    """Return where the first answer starts and ends, without spaces around it."""
    if not answers or len(answers) != len(starts):
        raise ValueError(
            f"{where} must have as many answers as starts, and at least one, but has "
            f"{len(answers)} and {len(starts)}."
        )
    for answer, start in zip(answers, starts, strict=True):
        if start < 0 or context[start : start + len(answer)] != answer or not answer.strip():
            raise ValueError(
                f"The answer {answer!r} in {where} is not at position {start} of its context."
            )
    text = answers[0]
    first = starts[0] + len(text) - len(text.lstrip())
    return first, first + len(text.strip())
