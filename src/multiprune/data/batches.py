"""Encoded tasks, and the iterables of batches that training and evaluation read."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Generic

import numpy as np

from multiprune.data.collate import collate
from multiprune.data.loader import AnyBatch, Loader, Request
from multiprune.tasks.rows import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from datasets import Dataset
    from numpy.typing import NDArray
    from pyarrow import ChunkedArray

    from multiprune.data.loader import Texts
    from multiprune.data.mixing import BatchPlan
    from multiprune.data.stream import EncodedStream
    from multiprune.tasks.rows import Rows
    from multiprune.tasks.task import Batch, Task


@dataclass(frozen=True, kw_only=True)
class EncodedTask:
    """A task with its encoded splits, and how many texts were cut to the encoder's length.

    ``evaluated`` has the rows of splits by which answers are scored, where a task reads them. A
    streamed task has no training split, but a ``stream`` while it is trained.
    """

    name: str
    task: Task
    splits: Mapping[str, Dataset]
    truncated: int
    padding_token: int
    evaluated: Mapping[str, Rows] = field(default_factory=dict)
    stream: EncodedStream | None = None

    def batch(self, split: str, rows: Sequence[int], draw: Sequence[int] = ()) -> Batch:
        """Collate the given rows of a split.

        What a task makes random depends on ``draw`` and the rows: without it, a row is always read
        the same.
        """
        streamed = self.stream if split == "train" else None
        columns = self.columns(split, rows) if streamed is None else dict(streamed[rows])
        examples = columns.pop(EXAMPLE, rows)
        batch = collate(self.name, self.task, columns, padding_token=self.padding_token)
        return self.task.corrupted(replace(batch, rows=rows, examples=examples), draw)

    def for_worker(self) -> EncodedTask | None:
        """Return what batches are made of; splits are sent as the files that they are mapped from.

        A stream is read at one place, and has processes of its own that tokenize ahead.
        """
        if self.stream is not None:
            return None
        task = copy(self.task)
        # May hold anything, such as functions without a name.
        task.source, task.metrics = None, {}  # type: ignore[assignment]
        return replace(self, task=task, evaluated={})

    def columns(self, split: str, rows: Sequence[int]) -> dict[str, Sequence[Any]]:
        """Return the columns of the given rows of a split."""
        table = self._arrow[split][rows]
        return {
            name: table[name].to_pylist() if name in ("labels", EXAMPLE) else _arrays(table[name])
            for name in table.column_names
        }

    @cached_property
    def _arrow(self) -> dict[str, Dataset]:
        """The splits, without making a Python number of each token that is read."""
        return {split: table.with_format("arrow") for split, table in self.splits.items()}


def _arrays(column: ChunkedArray) -> list[NDArray[np.int64]]:
    """Return the lists of numbers of a column."""
    rows = column.combine_chunks()
    values = np.array(rows.flatten(), dtype=np.int64)
    ends = np.cumsum(rows.value_lengths()).tolist()
    return [values[first:last] for first, last in pairwise([0, *ends])]


def examples_of(table: Dataset) -> NDArray[np.int64]:
    """Return which example each encoded row is of."""
    if EXAMPLE not in table.column_names:
        return np.arange(len(table))
    return np.asarray(table.with_format("arrow")[EXAMPLE][:], dtype=np.int64)


def token_counts(table: Dataset) -> NDArray[np.int64]:
    """Return how many tokens each encoded row has."""
    import pyarrow.compute

    # Without making a Python number of each token.
    tokens = table.with_format("arrow")["input_ids"][:]
    return np.asarray(pyarrow.compute.list_value_length(tokens), dtype=np.int64)


def drawn_rows(table: Dataset, most: int | None, generator: np.random.Generator) -> list[int]:
    """Return where the encoded rows of ``most`` examples chosen at random are, or of all."""
    of_row, which = np.unique(examples_of(table), return_inverse=True)
    chosen = np.zeros(len(of_row), bool)
    chosen[generator.permutation(len(of_row))[:most]] = True
    rows: list[int] = np.flatnonzero(chosen[which]).tolist()
    return rows


def capped(table: Dataset, most: int, seed: Sequence[int]) -> Dataset:
    """Return the encoded rows of ``most`` examples chosen at random, or of all."""
    rows = drawn_rows(table, most, np.random.default_rng(seed))
    return table if len(rows) == len(table) else table.select(rows)


class TrainBatches(Generic[AnyBatch]):
    """The batches of a plan, one epoch an iteration; each rank sees its part of every batch.

    Counts the batches it has served, and continues there when it is iterated again or its state
    was loaded: Lightning keeps the state of such an iterable in its checkpoints. Batches that are
    made ahead do not count.
    """

    def __init__(
        self,
        plan: BatchPlan,
        texts: Mapping[str, Texts[AnyBatch]],
        *,
        rank: int,
        world_size: int,
        loader: Loader | None = None,
    ) -> None:
        self.plan = plan
        self.texts: Mapping[str, Texts[AnyBatch]] = texts
        self.rank, self.world_size = rank, world_size
        self.loader = loader or Loader()
        self.served = 0

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self.plan.batches_per_epoch

    def __iter__(self) -> Iterator[AnyBatch]:
        """Yield as many batches as an epoch has, from the one after the last served."""
        for batch in self.loader.batches(self.texts, self._requests()):
            self.served += 1
            yield batch

    def _requests(self) -> Iterator[Request]:
        """Yield what an epoch's batches are made from."""
        numbers = range(self.served, self.served + len(self))
        for number, (name, examples) in zip(numbers, self.plan.batches(self.served), strict=False):
            # Filled up from its own start, so that all ranks have equally many examples.
            whole = np.resize(examples, -(-len(examples) // self.world_size) * self.world_size)
            mine = whole[self.rank :: self.world_size].tolist()
            yield Request(name, "train", mine, [self.plan.seed, number])

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches were served, and where streams are."""
        streams = {name: stream.state_dict() for name, stream in self.streams.items()}
        return {"served": self.served} | ({"streams": streams} if streams else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after as many batches as ``state_dict`` told.

        Raises:
            CorpusError: if a stream is of another corpus.
        """
        self.served = state["served"]
        for name, stream in self.streams.items():
            stream.load_state_dict(state["streams"][name])

    def close(self) -> None:
        """End what streams have running."""
        for stream in self.streams.values():
            stream.ahead.close()

    @property
    def streams(self) -> dict[str, EncodedStream]:
        """The streams that batches are made of, by task."""
        return {
            name: one.stream
            for name, one in self.texts.items()
            if isinstance(one, EncodedTask) and one.stream is not None
        }


class EvaluationBatches:
    """One split of one task in order; each rank sees every ``world_size``-th batch."""

    def __init__(
        self,
        task: EncodedTask,
        split: str,
        *,
        batch_size: int,
        rank: int,
        world_size: int,
        loader: Loader | None = None,
    ) -> None:
        self.task, self.split = task, split
        self.loader = loader or Loader()
        rows = len(task.splits[split])
        # Lightning wants a batch on each rank, also of a split smaller than a batch.
        batch_size = min(batch_size, max(1, rows // world_size))
        starts = range(0, rows, batch_size)[rank::world_size]
        self._rows = [range(start, min(start + batch_size, rows)) for start in starts]

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of this rank."""
        requests = (Request(self.task.name, self.split, rows) for rows in self._rows)
        return self.loader.batches({self.task.name: self.task}, requests)
