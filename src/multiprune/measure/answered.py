"""Predictions of an exported model for the examples of a split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from multiprune.data.batches import token_counts
from multiprune.runs.predictions import Answers
from multiprune.tasks.answers import answers_to, joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from multiprune.data.batches import EncodedTask
    from multiprune.export.shipped import ShippedModel

_BATCH_SIZE = 32


def batches_by_length(
    encoded: EncodedTask,
    split: str,
    rows: Iterable[int] | None = None,
    *,
    batch_size: int = _BATCH_SIZE,
) -> Iterator[list[int]]:
    """Yield the rows of a split, all by default, in batches of similar length."""
    lengths = token_counts(encoded.splits[split])
    chosen = np.arange(len(lengths)) if rows is None else np.sort(np.fromiter(rows, np.int64))
    ordered = chosen[np.argsort(lengths[chosen], kind="stable")]
    for start in range(0, len(ordered), batch_size):
        yield ordered[start : start + batch_size].tolist()


@torch.no_grad()
def answered(
    model: ShippedModel,
    encoded: EncodedTask,
    split: str,
    *,
    rows: Iterable[int] | None = None,
    head: str | None = None,
    batch_size: int = _BATCH_SIZE,
) -> Answers:
    """Return the answers to rows of a split, all by default, on the CPU.

    ``head`` is the name of another task of the model, to ask its head.
    """
    found = []
    for chosen in batches_by_length(encoded, split, rows, batch_size=batch_size):
        batch = encoded.batch(split, chosen).to(model.encoder.device)
        logits = model(head or encoded.name, batch.inputs, batch.labels)
        answers = answers_to(encoded.task, batch, logits)
        found.append(Answers(*(tensor.cpu() for tensor in vars(answers).values())))
    return encoded.task.output.combined(joined(found))
