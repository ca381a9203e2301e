"""Draw, label and weight the calibration examples of a task."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from multiprune.data.batches import drawn_rows, examples_of
from multiprune.measure.answered import batches_by_length
from multiprune.specialize.recipe import GOLD, PSEUDO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from multiprune.data.batches import EncodedTask
    from multiprune.export.shipped import ShippedModel
    from multiprune.specialize.recipe import Recipe
    from multiprune.tasks.task import Batch, Task


@dataclass(frozen=True)
class WeighedBatch:
    """A batch, and the weights of its examples, 1 by default."""

    batch: Batch
    weights: Tensor | None


@dataclass(frozen=True)
class CalibrationSet:
    """Batches, and how often each class is their answer, if the task has classes."""

    batches: Sequence[WeighedBatch]
    counts: dict[str, int]

    @property
    def warning(self) -> str | None:
        """What is wrong with the answers, if not every class is among them."""
        missing = [name for name, count in self.counts.items() if not count]
        if not missing:
            return None
        if len(missing) == len(self.counts) - 1:
            return f"All answers are of one class ({_listed(self.counts)})."
        return f"No answer is {' or '.join(missing)} ({_listed(self.counts)})."


@torch.no_grad()
def calibration_set(encoded: EncodedTask, model: ShippedModel, recipe: Recipe) -> CalibrationSet:
    """Draw examples of a task, by its name and the seed, and label them.

    Weighed by confidence, the probability of labels is attributed rather than its logarithm.

    Raises:
        ValueError: if there are fewer examples than asked for, or than classes.
    """
    task = encoded.task
    _check_numbers(encoded, recipe)
    batches = [
        _labelled(task, model, encoded.batch("train", rows), recipe)
        for rows in batches_by_length(encoded, "train", _drawn(encoded, recipe))
    ]
    classes = task.output.classes
    answers = Counter(int(label) for one in batches for label in one.batch.labels if classes)
    counts = {name: answers[number] for number, name in enumerate(classes)}
    return CalibrationSet(batches, counts)


def _drawn(encoded: EncodedTask, recipe: Recipe) -> list[int]:
    generator = np.random.default_rng([recipe.seed, *encoded.name.encode()])
    return drawn_rows(encoded.splits["train"], recipe.examples, generator)


def _labelled(task: Task, model: ShippedModel, batch: Batch, recipe: Recipe) -> WeighedBatch:
    if recipe.labels == GOLD and not recipe.weight_by_confidence:
        return WeighedBatch(batch, None)
    logits = model(batch.task, batch.inputs, batch.labels)
    if recipe.labels == PSEUDO:
        found, _ = task.output.predictions(logits, batch.labels)
        batch = replace(batch, labels=task.output.as_labels(found, batch.labels))
    if not recipe.weight_by_confidence:
        return WeighedBatch(batch, None)
    return WeighedBatch(batch, task.log_probabilities(logits, batch.labels).exp())


def _check_numbers(encoded: EncodedTask, recipe: Recipe) -> None:
    if encoded.task.compares_rows:
        raise ValueError(
            f"Specialists are of tasks whose answers are labels, but {encoded.name} is answered by "
            "spans of texts that are read in several windows."
        )
    if "train" not in encoded.splits:
        raise ValueError(
            f"The training examples of {encoded.name} are streamed, and specialization needs "
            "them stored: choose another task."
        )
    available = len(np.unique(examples_of(encoded.splits["train"])))
    classes = encoded.task.output.classes
    if recipe.examples > available:
        raise ValueError(
            f"`examples` must be at most the {available:,} training examples of {encoded.name}, "
            f"but is {recipe.examples:,}."
        )
    if recipe.examples < len(classes):
        raise ValueError(
            f"`examples` must be at least the {len(classes)} classes of {encoded.name}, but is "
            f"{recipe.examples}."
        )
    if recipe.labels == PSEUDO and not encoded.task.output.can_be_label:
        raise ValueError(
            f"Pseudo-labels must be classes, but {encoded.name} answers with a number, of which "
            "the model's own has no error to attribute: use `labels=gold`."
        )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
