"""Log misclassified examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from multiprune.tracking.tracker import Table

if TYPE_CHECKING:
    from torch import Tensor

    from multiprune.runs.predictions import Answers
    from multiprune.tasks.rows import Rows
    from multiprune.tasks.task import Task


def worst_examples(task: Task, rows: Rows, answers: Answers, count: int) -> Table:
    """Return ``count`` examples with the largest errors: text, label, prediction and error.

    The error of an example is the mean over its answers of whether they are wrong, or of how far
    off they are where answers are numbers. Equal errors stay in order.

    Args:
        task: what the answers are to.
        rows: of the split that was answered.
        answers: to all examples, or to some.
        count: how many examples, or as many as there are.
    """
    known = answers.sorted()
    examples, inverse = torch.unique(known.examples, return_inverse=True)
    errors = _errors(known)
    means = torch.bincount(inverse, errors) / torch.bincount(inverse)
    worst = means.argsort(descending=True, stable=True)[:count]
    texts = {column: rows.table[column][:] for column in task.text}
    table: list[list[str | float]] = []
    for place in worst.tolist():
        mine, row = inverse == place, int(examples[place])
        table.append(
            [
                *(_words(texts[column][row]) for column in task.text),
                task.output.shown(known.labels[mine]),
                task.output.shown(known.predictions[mine]),
                float(means[place]),
            ]
        )
    return Table([*task.text, "label", "prediction", "error"], table)


def _errors(answers: Answers) -> Tensor:
    """Return the error of each answer, of shape (answers,)."""
    predictions, labels = answers.predictions, answers.labels
    errors = predictions != labels
    if predictions.is_floating_point():
        errors = (predictions - labels).abs()
    return errors.double().reshape(len(errors), -1).mean(1)


def _words(text: str | list[str]) -> str:
    return text if isinstance(text, str) else " ".join(text)
