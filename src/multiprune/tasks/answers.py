"""Predictions of a model for a whole evaluation set."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from multiprune.runs.predictions import Answers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from multiprune.tasks.task import Batch, Task


def decided(task: Task, answers: Answers) -> Answers:
    """Return answers with what their predictions come to."""
    return replace(answers, predictions=task.output.decided(answers.predictions))


def answers_to(task: Task, batch: Batch, logits: Tensor) -> Answers:
    """Return what logits answer to the examples of a batch."""
    predictions, labels = task.output.predictions(logits, batch.labels)
    known = batch.examples or batch.rows or [-1] * len(batch.labels)
    examples = torch.tensor(known, device=labels.device)
    return Answers(
        predictions,
        labels,
        examples.repeat_interleave(task.output.answers_by_example(batch.labels)),
    )


def joined(parts: Iterable[Answers]) -> Answers:
    """Return the answers to several batches as one."""
    columns = zip(*((one.predictions, one.labels, one.examples) for one in parts), strict=True)
    return Answers(*(torch.cat(column) for column in columns))
