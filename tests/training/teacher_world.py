"""A student, and teachers of it that were saved as a run saves its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset

from multiprune.data.batches import EncodedTask
from multiprune.data.source import HubSource
from multiprune.export.checkpoint import save_model
from multiprune.metrics import Accuracy
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.tasks.classification import Classification, MultiLabel, Regression
from multiprune.tasks.rows import IGNORED
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from multiprune.models.encoder import Encoder
    from multiprune.tasks.task import Task

_COMMON: dict[str, Any] = {
    "text": ["text"],
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
TASKS: dict[str, Task] = {
    "classes": Classification(labels=["bad", "good", "fair"], **_COMMON),
    "sets": MultiLabel(labels=["red", "big"], **_COMMON),
    "number": Regression(minimum=0, maximum=5, **_COMMON),
    "tags": Tagging(labels=["other", "agent"], **_COMMON),
}
LENGTHS = [3, 9, 4, 12, 1, 7, 5]
SHAPE: dict[str, Any] = {"layers": 2, "hidden": 16, "heads": 2, "intermediate": 32}


def encoder_of(seed: int = 0, **shape: int) -> Encoder:
    torch.manual_seed(seed)
    return from_scratch(**(SHAPE | shape), dropout=0.1)


def save_teacher(folder: Path, *, tasks: Mapping[str, Task] = TASKS, **options: int) -> str:
    """Write a teacher as a run would; return its folder."""
    encoder = encoder_of(**{"seed": 1} | options)
    save_model(folder / "model", MultitaskModel(encoder.model, tasks), encoder.tokenizer, tasks)
    return str(folder)


def encoded(name: str, lengths: list[int] = LENGTHS) -> EncodedTask:
    """Make a task with examples of the given numbers of tokens."""
    tokens = [[5 + (row + place) % 60 for place in range(n)] for row, n in enumerate(lengths)]
    labels: dict[str, list[Any]] = {
        "classes": [row % 3 for row in range(len(lengths))],
        "sets": [[row % 2, 1] for row in range(len(lengths))],
        "number": [row % 5 for row in range(len(lengths))],
        "tags": [[IGNORED, *[place % 2 for place in range(n - 1)]] for n in lengths],
    }
    columns = {"input_ids": tokens, "token_type_ids": [[0] * n for n in lengths]}
    table = Dataset.from_dict(columns | {"labels": labels[name]})
    return EncodedTask(
        name=name, task=TASKS[name], splits={"train": table}, truncated=0, padding_token=0
    )


@dataclass
class Strategy:
    """The device of a trainer, and how often its ranks have waited."""

    root_device = torch.device("cpu")
    barriers = 0

    def barrier(self, _: str) -> None:
        self.barriers += 1
