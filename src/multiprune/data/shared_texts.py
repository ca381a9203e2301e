"""Tasks that label the same texts, joined for training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from multiprune.data.batches import EncodedTask, token_counts
from multiprune.data.collate import padded
from multiprune.tasks.rows import EXAMPLE
from multiprune.tasks.shared_batch import SharedBatch
from multiprune.tasks.task import Batch, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from datasets import Dataset
    from numpy.typing import NDArray

# Tasks share texts if at least a quarter of the passes through the encoder is saved by it.
_MOST = 0.75

_ROWS_AT_A_TIME = 1000


@dataclass(frozen=True)
class SharedTexts:
    """The training texts of several tasks, each of which is there once.

    Attributes:
        tasks: by name.
        rows: by task, shape (texts,): the row of its training split that holds a text, or -1.
    """

    tasks: Mapping[str, EncodedTask]
    rows: Mapping[str, NDArray[np.int32]]

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(next(iter(self.rows.values())))

    @property
    def token_counts(self) -> NDArray[np.int64]:
        """How many tokens each text has."""
        counts = np.zeros(len(self), np.int64)
        for name, rows in self.rows.items():
            counts[rows >= 0] = token_counts(self.tasks[name].splits["train"])[rows[rows >= 0]]
        return counts

    def batch(self, split: str, texts: Sequence[int], draw: Sequence[int] = ()) -> SharedBatch:  # noqa: ARG002
        """Collate the given texts, with the labels of all tasks that have any."""
        values: dict[str, list[Any]] = {}
        places, rows, columns = {}, {}, {}
        for name, of_text in self.rows.items():
            mine = of_text[np.asarray(texts)]
            if not len(there := np.flatnonzero(mine >= 0)):
                continue
            places[name], rows[name] = there.tolist(), mine[there].tolist()
            columns[name] = self.tasks[name].columns(split, rows[name])
            for key in columns[name].keys() - {"labels", EXAMPLE}:
                column = values.setdefault(key, [None] * len(texts))
                for place, value in zip(places[name], columns[name][key], strict=True):
                    column[place] = value
        padding_token = next(iter(self.tasks.values())).padding_token
        inputs = padded(values, padding_token=padding_token)
        width = inputs["input_ids"].shape[1]
        labels = {
            name: Batch(
                name,
                {},
                self.tasks[name].task.label_tensor(columns[name]["labels"], width),
                rows[name],
                columns[name].get(EXAMPLE, rows[name]),
            )
            for name in rows
        }
        fewer = {name: torch.tensor(of) for name, of in places.items() if len(of) < len(texts)}
        return SharedBatch(inputs, labels, fewer)

    def for_worker(self) -> SharedTexts:
        """Return what batches are made of."""
        sent = {name: one.for_worker() for name, one in self.tasks.items()}
        return replace(self, tasks={name: one for name, one in sent.items() if one is not None})


def find_shared_texts(
    tasks: Mapping[str, EncodedTask], weights: Mapping[str, float]
) -> list[SharedTexts]:
    """Find the tasks that label the same texts, by their sources, columns and tokens.

    Tasks that are mixed with different ``weights`` share none: each text is read as often for all.
    Nor do those that read parts of a text or change what they read.
    """
    groups: list[list[str]] = []
    for name in filter(lambda name: _can_share(tasks[name]), tasks):
        for group in groups:
            if _has_same_texts(tasks[name].task, tasks[group[0]].task) and (
                weights[name] == weights[group[0]]
            ):
                group.append(name)
                break
        else:
            groups.append([name])
    found = [_aligned({name: tasks[name] for name in group}) for group in groups if len(group) > 1]
    return [one for one in found if _saves_passes(one)]


def _can_share(encoded: EncodedTask) -> bool:
    kind = type(encoded.task)
    return (
        "train" in encoded.splits
        and kind.encode is Task.encode
        and kind.corrupted is Task.corrupted
        and not encoded.task.output.per_token
    )


def _has_same_texts(one: Task, other: Task) -> bool:
    return [*one.text] == [*other.text] and one.source == other.source


def _saves_passes(shared: SharedTexts) -> bool:
    alone = sum(len(one.splits["train"]) for one in shared.tasks.values())
    return len(shared) <= _MOST * alone


def _aligned(tasks: Mapping[str, EncodedTask]) -> SharedTexts:
    """Bring rows of the same tokens together; the n-th of a text is paired with the n-th."""
    keys = [_keys(one.splits["train"]) for one in tasks.values()]
    texts, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    rows, first = {}, 0
    for name, key in zip(tasks, keys, strict=True):
        rows[name] = np.full(len(texts), -1, np.int32)
        rows[name][inverse[first : first + len(key)]] = np.arange(len(key))
        first += len(key)
    return SharedTexts(tasks, rows)


def _keys(table: Dataset) -> NDArray[np.uint64]:
    """Return a number for each row, by its tokens and how many such rows came before."""
    names = sorted({*table.column_names} - {"labels", EXAMPLE})
    arrow = table.with_format("arrow")
    digests = []
    for first in range(0, len(table), _ROWS_AT_A_TIME):
        part = arrow[first : first + _ROWS_AT_A_TIME]
        for values in zip(*(part[name].to_pylist() for name in names), strict=True):
            content = np.array([len(values[0]), *chain(*values)], np.int64)
            digests.append(hashlib.blake2b(content.tobytes(), digest_size=8).digest())
    keys = np.frombuffer(b"".join(digests), np.uint64)
    order = np.argsort(keys, kind="stable")
    places = np.arange(len(keys))
    begins = np.append(True, keys[order][1:] != keys[order][:-1])
    before = np.empty(len(keys), np.uint64)
    before[order] = places - np.maximum.accumulate(np.where(begins, places, 0))
    # An odd factor: numbers of different counts differ.
    return keys + before * np.uint64(0x9E3779B97F4A7C15)
