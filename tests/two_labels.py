"""Tickets of which each has a department and an urgency: two labels of one text."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from multiprune.data.datamodule import MultitaskDataModule
from multiprune.data.mixing import ProportionalMixing
from multiprune.data.source import GeneratedSource
from multiprune.metrics import Accuracy
from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks.classification import Classification
from multiprune.tasks.synthetic import agreement

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from multiprune.tasks.task import Task

TOKENIZER = character_tokenizer()


def labelled_twice(count: int, seed: int, *, unlabelled: int) -> Mapping[str, list[Any]]:
    """Return sentences whose first ``unlabelled`` ones have no urgency."""
    sentences = agreement(count, seed)["sentence"]
    words = [len(str(one).split()) for one in sentences]
    urgency = [-1 if row < unlabelled else count % 3 for row, count in enumerate(words)]
    return {
        "text": [*sentences],
        "department": [count % 2 for count in words],
        "urgency": urgency,
    }


def tickets(*, rows: int, unlabelled: int = 0, seed: int = 0) -> dict[str, Task]:
    """Return both tasks, with so many training rows."""
    source = GeneratedSource(
        generator=partial(labelled_twice, unlabelled=unlabelled),
        rows={"train": rows, "validation": 8 + unlabelled},
        seed=seed,
    )
    labels = {"department": ["sales", "support"], "urgency": ["low", "high", "now"]}
    # A source of its own for each, as a configuration makes it.
    return {
        name: Classification(
            text=["text"],
            label=name,
            labels=of,
            metrics={"accuracy": Accuracy()},
            source=GeneratedSource(
                generator=source.generator, rows=dict(source.rows), seed=source.seed
            ),
        )
        for name, of in labels.items()
    }


def set_up(folder: Path, tasks: Mapping[str, Task], **changes: Any) -> MultitaskDataModule:
    """Return the data of tasks in batches of four."""
    arguments: dict[str, Any] = {
        "tokenizer": TOKENIZER,
        "max_length": 32,
        "batch_size": 4,
        "mixing": ProportionalMixing(),
        "cache": str(folder),
    }
    data = MultitaskDataModule(tasks=tasks, **arguments | changes)
    data.prepare_data()
    data.setup()
    return data
