"""Output of an answer span in a context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import override

from multiprune.metrics.predicted import AnswerTexts, Predicted
from multiprune.tasks.outputs.heads import USUAL_DROPOUT, TokenHead
from multiprune.tasks.outputs.output import Output, Prediction, Request
from multiprune.tasks.windows import context_windows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from multiprune.runs.predictions import Answers

#: A logit that no softmax sees; infinity would make differences of log-probabilities undefined.
NEVER = -1e9


@dataclass(frozen=True)
class PredictedAnswer(Prediction):
    """The part ``context[start:end]`` that answers a question; ``score`` is a sum of logits."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class AnswerSpan(Output):
    """The span with the largest sum of the logits of its start and its end, in any window.

    Logits are of shape (windows, tokens, 2), and labels of shape (windows, 2 + tokens, 2): the
    tokens where the answer starts and ends; the characters of that; and the characters of each
    token, -1 outside the context.

    Attributes:
        overlap: tokens of a context that neighbouring windows share.
        question_length: tokens of a question that are read.
        answer_length: tokens that an answer may have.
    """

    overlap: int
    question_length: int
    answer_length: int

    kind: ClassVar[str] = "span"
    per_token: ClassVar[bool] = True
    can_be_label: ClassVar[bool] = False
    card_example: ClassVar[str] = """\
question, context = "What is read?", "A context that has the answer in it."
scores = logits("{task}", [question], [context])[0]
inputs = read("{task}", [question], [context])
inside = [place for place, part in enumerate(inputs.sequence_ids(0)) if part == 1]
spans = [(first, last) for first in inside for last in inside if first <= last]
first, last = max(spans, key=lambda span: scores[span[0], 0] + scores[span[1], 1])
print(context[inputs.token_to_chars(0, first).start : inputs.token_to_chars(0, last).end])
"""

    @property
    def num_outputs(self) -> int:
        """The number of outputs of the head."""
        return 2

    @property
    @override
    def predicted(self) -> Predicted:
        return AnswerTexts()

    @property
    @override
    def described(self) -> Mapping[str, Any]:
        return {
            "overlap": self.overlap,
            "question_length": self.question_length,
            "answer_length": self.answer_length,
        }

    @classmethod
    @override
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        names = ("overlap", "question_length", "answer_length")
        return cls(*(int(description[name]) for name in names))

    @property
    @override
    def label_space(self) -> Mapping[str, Any]:
        return {"kind": self.kind}

    @property
    @override
    def meaning(self) -> str:
        return "scores of each token as the start and as the end of the answer"

    @override
    def head(self, encoder: PreTrainedModel, dropout: float = USUAL_DROPOUT) -> nn.Module:
        return TokenHead(encoder.config.hidden_size, self.num_outputs, dropout)

    @override
    def predictions(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best span of each window, and the characters that are right.

        A span is its sum of logits, and the characters where it starts and ends.
        """
        return best_spans(logits, labels[:, 2:], self.answer_length), labels[:, 1]

    @override
    def combined(self, answers: Answers) -> Answers:
        """Return the best answer to each example, of its windows; the first of equally good."""
        order = answers.predictions[:, 0].argsort(descending=True, stable=True)
        order = order[answers.examples[order].argsort(stable=True)]
        examples = answers.examples[order]
        is_first = torch.ones_like(examples, dtype=torch.bool)
        is_first[1:] = examples[1:] != examples[:-1]
        best = answers.chosen(order[is_first])
        return type(answers)(best.predictions[:, 1:].long(), best.labels, best.examples)

    @override
    def shown(self, answers: Tensor) -> str:
        start, end = answers[0].tolist()
        return f"characters {start} to {end}"

    @override
    def request(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[Any],
        pairs: Sequence[str] | None,
        max_length: int,
    ) -> Request:
        return AnswerRequest(self, tokenizer, texts, pairs or [], max_length)


class AnswerRequest(Request):
    """Questions whose answers are parts of contexts, which are read in windows."""

    def __init__(
        self,
        output: AnswerSpan,
        tokenizer: PreTrainedTokenizerBase,
        questions: Sequence[str],
        contexts: Sequence[str],
        max_length: int,
    ) -> None:
        self.contexts, self.answer_length = contexts, output.answer_length
        self.windows = context_windows(
            questions,
            contexts,
            [None] * len(contexts),
            tokenizer,
            max_length=max_length,
            overlap=output.overlap,
            question_length=output.question_length,
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


def best_spans(
    logits: Float[Tensor, "windows tokens 2"],
    characters: Int[Tensor, "windows tokens 2"],
    answer_length: int,
) -> Float[Tensor, "windows 3"]:
    """Return the sum of logits of the best span of each window, and where it starts and ends.

    ``characters`` are those of each token, negative outside contexts.
    """
    scores = logits.float().masked_fill(characters[..., :1] < 0, NEVER)
    sums = scores[:, :, None, 0] + scores[:, None, :, 1]
    length = logits.shape[1]
    allowed = torch.ones(length, length, dtype=torch.bool, device=logits.device)
    allowed = allowed.triu().tril(answer_length - 1)
    best, place = sums.masked_fill(~allowed, 4 * NEVER).flatten(1).max(1)
    rows = torch.arange(len(logits), device=logits.device)
    start = characters[rows, place // length, 0]
    end = characters[rows, place % length, 1]
    # Characters are exact up to 2^24.
    return torch.stack([best, start.float(), end.float()], 1)
