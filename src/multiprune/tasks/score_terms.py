"""What each example adds to a task's score, so that scores of resampled examples need no texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from multiprune.tasks import answer_text
from multiprune.tasks.languages import languages_of
from multiprune.tasks.metrics import accuracy, token_accuracy
from multiprune.tasks.scores import reads_rows
from multiprune.tasks.spans import span_f1

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from multiprune.tasks.answers import Answers
    from multiprune.tasks.spans import Spans
    from multiprune.tasks.task import Metric, Rows, Task


@dataclass(frozen=True)
class ScoreTerms:
    """A score as the mean over languages of one sum over examples divided by another.

    Attributes:
        numerators: (examples,), sorted by example.
        denominators: (examples,).
        languages: (examples,), a number for each that there is, from 0.
        units: (examples,), a number from 0 for what is resampled: examples that say the same in
            several languages are one.
    """

    numerators: Tensor
    denominators: Tensor
    languages: Tensor
    units: Tensor


def score_terms(task: Task, answers: Answers, rows: Rows | None) -> ScoreTerms | None:
    """Return the terms of a task's score.

    None if answers give the score without them, or if it is no such quotient.

    Args:
        task: whose score it is.
        answers: to a whole split, each with its example.
        rows: of that split; None where the task does not read them.
    """
    metric = task.metrics[task.score_name]
    if metric not in _TERMS or not (reads_rows(task) or metric in _ALWAYS):
        return None
    answers = answers.sorted()
    numerators, denominators = _TERMS[metric](*task.compared(answers, rows))
    examples, which = torch.unique(answers.examples.cpu(), return_inverse=True)
    if len(numerators) != len(examples):
        numerators, denominators = (
            torch.zeros(len(examples), dtype=torch.double).index_add(0, which, one)
            for one in (numerators, denominators)
        )
    places: list[int] = examples.tolist()
    languages, units = [0] * len(places), places
    if task.languages:
        assert rows is not None
        of_row = languages_of(rows, task.languages)
        languages = _numbers([of_row[place] for place in places])
        if task.parallel is not None:
            said = rows.table[task.parallel][:]
            units = [said[place] for place in places]
    return ScoreTerms(
        numerators, denominators, torch.tensor(languages), torch.tensor(_numbers(units))
    )


def _right(predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    right = predictions == labels
    right = (right if right.dim() == 1 else right.all(-1)).double().cpu()
    return right, torch.ones_like(right)


def _of_tokens(predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return _right(predictions[:, 0], labels[:, 0])


def _of_spans(predictions: Sequence[Spans], labels: Sequence[Spans]) -> tuple[Tensor, Tensor]:
    pairs = [*zip(predictions, labels, strict=True)]
    right = torch.tensor([2 * len(found & true) for found, true in pairs])
    return right.double(), torch.tensor([len(found) + len(true) for found, true in pairs]).double()


def _of_mean(metric: Metric) -> Callable[[Any, Any], tuple[Tensor, Tensor]]:
    """Take a mean over questions apart."""

    def terms(predictions: Sequence[str], labels: Sequence[Any]) -> tuple[Tensor, Tensor]:
        pairs = zip(predictions, labels, strict=True)
        found = [metric([answer], [right]) for answer, right in pairs]
        values = torch.tensor(found, dtype=torch.double)
        return values, torch.ones_like(values)

    return terms


#: Gives numerators and denominators, of each answer or each example.
_TERMS: Mapping[Metric, Callable[[Any, Any], tuple[Tensor, Tensor]]] = {
    accuracy: _right,
    token_accuracy: _of_tokens,
    span_f1: _of_spans,
    answer_text.f1: _of_mean(answer_text.f1),
    answer_text.exact_match: _of_mean(answer_text.exact_match),
}

#: Metrics that answers do not give as they are kept.
_ALWAYS = (span_f1, token_accuracy)


def _numbers(values: Sequence[Any]) -> list[int]:
    """Return the number of each value among those that there are, by their first place."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return [numbers[value] for value in values]
