"""The metrics of a whole evaluation set, of all languages and of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from multiprune.metrics.catalogue import is_known, recorded
from multiprune.metrics.metric import SumMetric, WholeMetric
from multiprune.metrics.terms import MetricTerms, terms_of
from multiprune.tasks.languages import languages_of, with_averages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.tasks.answers import Answers
    from multiprune.tasks.task import Rows, Task


def reads_rows(task: Task) -> bool:
    """Whether the scores of a task depend on more than answers."""
    return bool(task.languages) or task.compares_rows


def scores_of(task: Task, answers: Answers, rows: Rows | None) -> dict[str, float]:
    """Return all metrics of a task; of several languages the mean, each one, and groups of them.

    ``rows`` are those of the split that was answered; None where a task does not read them.
    """
    if not task.languages:
        return _metrics(task, answers, rows)
    assert rows is not None
    numbers = {language: number for number, language in enumerate(task.languages)}
    by_row = torch.tensor([numbers[one] for one in languages_of(rows, task.languages)])
    of_answer = by_row[answers.examples.cpu().long()]
    by_language = {
        language: _metrics(task, answers.chosen(mine.to(answers.examples.device)), rows)
        for language, number in numbers.items()
        if (mine := of_answer == number).any()
    }
    return with_averages(by_language, task.language_groups)


def metrics_of(tasks: Mapping[str, Task]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what the metrics of each task are, for a record that a report can read."""
    return {
        name: {label: recorded(metric) for label, metric in task.metrics.items()}
        for name, task in tasks.items()
    }


def metric_terms(task: Task, answers: Answers, rows: Rows | None) -> MetricTerms | None:
    """Return what each example adds to a task's score; None if its metric is a user's own.

    Args:
        task: whose score it is.
        answers: to a whole split, each with its example.
        rows: of that split; None where the task does not read them.
    """
    metric = task.metrics[task.score_name]
    if not is_known(metric):
        return None
    assert isinstance(metric, SumMetric | WholeMetric)
    outputs, labels, of_entry = task.compared(answers.sorted(), rows)
    examples, which = torch.unique(of_entry.cpu(), return_inverse=True)
    terms, places = terms_of(metric, outputs, labels, which, len(examples))
    numbers: list[int] = examples.tolist()
    languages, units = [0] * len(numbers), numbers
    if task.languages:
        assert rows is not None
        of_row = languages_of(rows, task.languages)
        languages = _numbers([of_row[number] for number in numbers])
        if task.parallel is not None:
            said = rows.table[task.parallel][:]
            units = [said[number] for number in numbers]
    return MetricTerms(terms, places, torch.tensor(languages), torch.tensor(_numbers(units)))


def _metrics(task: Task, answers: Answers, rows: Rows | None) -> dict[str, float]:
    outputs, labels, _ = task.compared(answers, rows)
    return {name: metric(outputs, labels) for name, metric in task.metrics.items()}


def _numbers(values: Sequence[Any]) -> list[int]:
    """Return the number of each value among those that there are, by their first place."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return [numbers[value] for value in values]
