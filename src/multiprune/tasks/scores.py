"""Metrics of an evaluation set, overall and by language."""

from __future__ import annotations

import logging
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from multiprune.metrics.catalogue import is_known, recorded
from multiprune.metrics.metric import SumMetric, WholeMetric
from multiprune.metrics.repeated import Repeated
from multiprune.metrics.terms import MetricDraws, MetricTerms, resampled, terms_of
from multiprune.tasks.languages import languages_of, with_averages
from multiprune.user_code import calling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from multiprune.runs.predictions import Answers
    from multiprune.tasks.rows import Rows
    from multiprune.tasks.task import Task

    #: Draws resamples of so many units: blocks of how often each has each of them.
    Resamples = Callable[[int], Iterable[Tensor]]

log = logging.getLogger(__name__)

# A metric that is computed anew of each of a thousand resamples takes seconds of so many.
_MOST_ANSWERS = 10_000


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


def check_metrics(tasks: Mapping[str, Task]) -> None:
    """Raise a ValueError that names the first metric which does not fit its task."""
    for name, task in tasks.items():
        for label, metric in task.metrics.items():
            try:
                metric.check(task.predicted)
            except ValueError as error:
                raise ValueError(f"Metric {label!r} of {name!r} does not fit: {error}.") from error


def metrics_of(task: Task) -> dict[str, dict[str, Any]]:
    """Return what the metrics of a task are, for a record that a report can read."""
    return {label: recorded(metric) for label, metric in task.metrics.items()}


def metric_terms(
    task: Task, answers: Answers, rows: Rows | None, resamples: Resamples
) -> MetricTerms | MetricDraws | None:
    """Return what a report needs to resample a task's score.

    That is what each example adds to it. Of a metric that is not one of ours, it is the score on
    each of the ``resamples`` of so many units; None if that fails, or would take long.

    Args:
        task: whose score it is.
        answers: to a whole split, each with its example.
        rows: of that split; None where the task does not read them.
        resamples: draws them, in blocks.
    """
    metric = task.metrics[task.score_name]
    outputs, labels, of_entry = task.compared(answers.sorted(), rows)
    examples, which = torch.unique(of_entry.cpu(), return_inverse=True)
    languages, units = _units(task, examples.tolist(), rows)
    if not isinstance(metric, SumMetric | WholeMetric):
        if len(which) > _MOST_ANSWERS:
            return None
        metric = Repeated(metric, outputs, labels)
    terms, places = terms_of(metric, outputs, labels, which, len(examples))
    known = MetricTerms(terms, places, languages, units)
    if is_known(metric):
        return known
    score, count = resampled(metric, known), int(units.max()) + 1
    weights = chain([torch.ones(1, count)], resamples(count))
    try:
        return MetricDraws(torch.cat([score(block) for block in weights]), languages, units)
    except Exception as error:
        # It is a metric of somebody else, and the run has its results.
        log.warning("Metric %r is not resampled: %s", task.score_name, error)
        return None


def _units(task: Task, examples: Sequence[int], rows: Rows | None) -> tuple[Tensor, Tensor]:
    """Return the numbers of the languages of examples, and of what is resampled."""
    languages: Sequence[Any] = [0] * len(examples)
    units: Sequence[Any] = examples
    if task.languages:
        assert rows is not None
        of_row = languages_of(rows, task.languages)
        languages = [of_row[number] for number in examples]
        if task.parallel is not None:
            said = rows.table[task.parallel][:]
            units = [said[number] for number in examples]
    return torch.tensor(_numbers(languages)), torch.tensor(_numbers(units))


def _metrics(task: Task, answers: Answers, rows: Rows | None) -> dict[str, float]:
    outputs, labels, _ = task.compared(answers, rows)
    found = {}
    for name, metric in task.metrics.items():
        with calling(metric, f"The metric {name!r}, which `metrics` of a task names,"):
            found[name] = metric(outputs, labels)
    return found


def _numbers(values: Sequence[Any]) -> list[int]:
    """Return the number of each value among those that there are, by their first place."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return [numbers[value] for value in values]
