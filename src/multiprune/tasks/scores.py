"""The metrics of a whole evaluation set, of all languages and of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from multiprune.own_parts import calling
from multiprune.tasks.languages import languages_of, with_averages

if TYPE_CHECKING:
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


def _metrics(task: Task, answers: Answers, rows: Rows | None) -> dict[str, float]:
    predictions, labels = task.compared(answers, rows)
    found = {}
    for name, metric in task.metrics.items():
        with calling(metric, f"The metric {name!r}, which `metrics` of a task names,"):
            found[name] = metric(predictions, labels)
    return found
