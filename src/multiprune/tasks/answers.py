"""What a model has answered to a whole evaluation set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from multiprune.tasks.task import Batch, Task


@dataclass(frozen=True)
class Answers:
    """Predictions beside labels, one an example, or one a labelled token in tagging.

    Attributes:
        predictions: probabilities (answers, classes or labels), numbers (answers,), or
            (answers, 2), the characters where a span starts and ends; as decided, classes
            (answers,), or 0 and 1 for each of several labels.
        labels: of the shape of decided predictions.
        examples: (answers,), where in its split the example stands that an answer belongs to;
            -1 if that is not known.
    """

    predictions: Tensor
    labels: Tensor
    examples: Tensor

    def sorted(self) -> Answers:
        """Return the same answers by example, those of one example in their order."""
        return self.chosen(self.examples.argsort(stable=True))

    def chosen(self, which: Tensor) -> Answers:
        """Return the answers at some places, or where a mask is true."""
        return Answers(self.predictions[which], self.labels[which], self.examples[which])


def decided(task: Task, answers: Answers) -> Answers:
    """Return answers with what their predictions come to."""
    return replace(answers, predictions=task.decided(answers.predictions))


def answers_to(task: Task, batch: Batch, logits: Tensor) -> Answers:
    """Return what logits answer to the examples of a batch."""
    predictions, labels = task.predictions(logits, batch.labels)
    known = batch.examples or batch.rows or [-1] * len(batch.labels)
    examples = torch.tensor(known, device=labels.device)
    return Answers(
        predictions, labels, examples.repeat_interleave(task.answers_by_example(batch.labels))
    )


def joined(parts: Iterable[Answers]) -> Answers:
    """Return the answers to several batches as one."""
    columns = zip(*((one.predictions, one.labels, one.examples) for one in parts), strict=True)
    return Answers(*(torch.cat(column) for column in columns))
