"""The few examples that show which units a task needs: drawn, labelled, weighed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from multiprune.data.batches import drawn_rows, examples_of
from multiprune.specialize.recipe import GOLD, PSEUDO
from multiprune.tasks.task import IGNORED
from multiprune.tasks.text_to_text import WordedClassification

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from multiprune.data.batches import EncodedTask
    from multiprune.export.shipped import ShippedModel
    from multiprune.specialize.recipe import Recipe
    from multiprune.tasks.task import Batch, Task

_BATCH_SIZE = 32


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
    classes = _classes(task)
    answers = Counter(int(label) for one in batches for label in one.batch.labels if classes)
    counts = {name: answers[number] for number, name in enumerate(classes)}
    return CalibrationSet(batches, counts)


def batches_by_length(
    encoded: EncodedTask, split: str, rows: Sequence[int] | None = None
) -> list[list[int]]:
    """Cut rows of a split, all by default, to batches of examples of similar length."""
    table = encoded.splits[split]
    rows = range(len(table)) if rows is None else rows
    lengths = [len(tokens) for tokens in table[list(rows)]["input_ids"]]
    ordered = [row for _, row in sorted(zip(lengths, rows, strict=True))]
    return [ordered[at : at + _BATCH_SIZE] for at in range(0, len(ordered), _BATCH_SIZE)]


def log_probabilities(task: Task, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the log-probability of the labels of each example, of shape (examples,).

    It is the sum over answers of what the task's loss averages, with its sign; for a number, the
    squared error stands for it. Of a label in words, it is that of all its words. Logits over the
    vocabulary are those of the labelled tokens, one after another.
    """
    if isinstance(task, WordedClassification):
        return logits.gather(1, labels[:, None]).squeeze(1)
    counts = task.loss_terms(logits, labels)
    apart = torch.split(logits, counts.tolist() if task.over_vocabulary else 1)
    losses = [
        task.loss(own, labels[one : one + 1]) if counts[one] else own.sum() * 0
        for one, own in enumerate(apart)
    ]
    return -torch.stack(losses) * counts


def _drawn(encoded: EncodedTask, recipe: Recipe) -> list[int]:
    generator = np.random.default_rng([recipe.seed, *encoded.name.encode()])
    return drawn_rows(encoded.splits["train"], recipe.examples, generator)


def _labelled(task: Task, model: ShippedModel, batch: Batch, recipe: Recipe) -> WeighedBatch:
    if recipe.labels == GOLD and not recipe.weight_by_confidence:
        return WeighedBatch(batch, None)
    logits = model(batch.task, batch.inputs, batch.labels)
    if recipe.labels == PSEUDO:
        batch = replace(batch, labels=pseudo_labels(task, logits, batch.labels))
    if not recipe.weight_by_confidence:
        return WeighedBatch(batch, None)
    return WeighedBatch(batch, log_probabilities(task, logits, batch.labels).exp())


def pseudo_labels(task: Task, logits: Tensor, labels: Tensor) -> Tensor:
    """Return what the model answers in place of ``labels``, which say no more than where."""
    answers = task.decided(task.predictions(logits, labels)[0])
    if not task.per_token:
        return answers
    pseudo = labels.clone()
    # Tokens stand beside their probability.
    pseudo[labels != IGNORED] = answers.reshape(len(answers), -1)[:, 0].to(labels.dtype)
    return pseudo


def _check_numbers(encoded: EncodedTask, recipe: Recipe) -> None:
    if encoded.task.compares_rows:
        raise ValueError(
            f"Specialists are of tasks whose answers are labels, but {encoded.name} is answered by "
            "spans of texts that are read in several windows."
        )
    if "train" not in encoded.splits:
        raise ValueError(
            f"Specialists need the training examples of a task, but those of {encoded.name} are "
            "streamed."
        )
    available = len(np.unique(examples_of(encoded.splits["train"])))
    classes = _classes(encoded.task)
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
    if recipe.labels == PSEUDO and encoded.task.definition["kind"] == "number":
        raise ValueError(
            f"Pseudo-labels must be classes, but {encoded.name} answers with a number, of which "
            "the model's own has no error to attribute: use `labels=gold`."
        )


def _classes(task: Task) -> Sequence[str]:
    """Return the classes of a task that has one of them an example."""
    definition = task.definition
    return list(definition["labels"]) if definition["kind"] == "classes" else []


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
