from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from test_datamodule import place
from two_labels import set_up, tickets

from multiprune.data.batches import EncodedTask
from multiprune.data.mixing import FixedMixing, UniformMixing
from multiprune.data.shared_texts import SharedTexts, find_shared_texts
from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.tasks.classification import Classification, Regression
from multiprune.tasks.shared_batch import SharedBatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from multiprune.data.datamodule import MultitaskDataModule
    from multiprune.tasks.task import Batch, Task

EQUAL = {"department": 0.5, "urgency": 0.5}


def task_of(kind: Any = Classification, **changes: Any) -> Task:
    labels = {"minimum": 0, "maximum": 9} if kind is Regression else {"labels": ["a", "b", "c"]}
    arguments: dict[str, Any] = {
        "text": ["text"],
        "label": "label",
        "metrics": {"accuracy": Accuracy()},
        "source": HubSource(path=None, mirror="tickets"),
    }
    return kind(**labels | arguments | changes)  # type: ignore[no-any-return]


def encoded(name: str, task: Task, tokens: Sequence[Sequence[int]], labels: Any) -> EncodedTask:
    columns = {"input_ids": tokens, "token_type_ids": [[0] * len(one) for one in tokens]}
    table = Dataset.from_dict(columns | {"labels": labels})
    return EncodedTask(name=name, task=task, splits={"train": table}, truncated=0, padding_token=1)


def shared(first: dict[str, Any], second: dict[str, Any], **changes: Any) -> SharedTexts | None:
    tasks = {
        "department": encoded("department", task_of(), **first),
        "urgency": encoded("urgency", task_of(Regression, **changes), **second),
    }
    found = find_shared_texts(tasks, EQUAL)
    assert len(found) <= 1
    return found[0] if found else None


def pairs(texts: SharedTexts) -> set[tuple[tuple[int, ...], Any, Any]]:
    """Return each text with its labels; None for a label that it has not."""
    found = set()
    for number in range(len(texts)):
        batch = texts.batch("train", [number])
        labels = {name: float(one.labels[0]) for name, one in batch.labels.items()}
        tokens = tuple(batch.inputs["input_ids"][0].tolist())
        found.add((tokens, labels.get("department"), labels.get("urgency")))
    return found


def test_each_text_is_there_once_with_the_labels_that_it_has() -> None:
    texts = shared(
        {"tokens": [[5, 6], [7], [8, 9, 4], [3]], "labels": [0, 1, 2, 0]},
        {"tokens": [[7], [3], [5, 6]], "labels": [7.0, 3.0, 5.0]},
    )
    assert texts is not None
    assert pairs(texts) == {
        ((5, 6), 0, 5.0),
        ((7,), 1, 7.0),
        ((8, 9, 4), 2, None),
        ((3,), 0, 3.0),
    }
    assert sorted(texts.token_counts) == [1, 1, 2, 3]


@pytest.mark.parametrize(("kept", "is_shared"), [(4, True), (2, True), (1, False)])
def test_few_texts_in_common_are_not_shared(kept: int, is_shared: bool) -> None:
    # Of 4 and 4 rows there are 4, 6 or 7 texts: a quarter of the passes must be saved.
    tokens = [[5], [6], [7], [8]]
    other = [*tokens[:kept], *([9, row] for row in range(4 - kept))]
    texts = shared({"tokens": tokens, "labels": [0] * 4}, {"tokens": other, "labels": [1.0] * 4})
    assert (texts is not None) == is_shared


def test_a_text_that_comes_several_times_is_paired_in_order() -> None:
    texts = shared(
        {"tokens": [[5], [5], [6], [5]], "labels": [0, 1, 2, 2]},
        {"tokens": [[6], [5], [5]], "labels": [6.0, 1.0, 2.0]},
    )
    assert texts is not None
    assert pairs(texts) == {((5,), 0, 1.0), ((5,), 1, 2.0), ((6,), 2, 6.0), ((5,), 2, None)}


def test_a_batch_holds_each_text_once_and_the_places_of_labels() -> None:
    tokens = [[5, 6], [7], [8, 9, 4], [3]]
    texts = shared(
        {"tokens": tokens, "labels": [0, 1, 2, 0]},
        {"tokens": [[7], [3], [8, 9, 4]], "labels": [7.0, 3.0, 8.0]},
    )
    assert texts is not None
    rows = texts.rows["department"]
    wanted = [int(np.flatnonzero(rows == row)[0]) for row in (0, 3, 1)]
    batch = texts.batch("train", wanted)
    assert batch.inputs["input_ids"].tolist() == [[5, 6], [3, 1], [7, 1]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1], [1, 0], [1, 0]]
    assert "department" not in batch.places
    assert batch.places["urgency"].tolist() == [1, 2]
    alone = batch.batches["urgency"]
    assert alone.inputs["input_ids"].tolist() == [[3, 1], [7, 1]]
    assert alone.labels.tolist() == [3.0, 7.0]
    assert (alone.rows, alone.examples) == ([1, 0], [1, 0])
    of_department = batch.batches["department"]
    assert of_department.labels.tolist() == [0, 0, 1]
    assert of_department.rows == [0, 3, 1]


SAME: dict[str, Any] = {"tokens": [[5, 6], [7], [8]], "labels": [0, 1, 2]}


@pytest.mark.parametrize(
    "changes",
    [{"source": HubSource(path=None, mirror="others")}, {"text": ["subject"]}],
    ids=["source", "text"],
)
def test_other_sources_and_columns_are_not_shared(changes: dict[str, Any]) -> None:
    assert shared(SAME, SAME) is not None
    assert shared(SAME, SAME, **changes) is None


def test_tasks_that_are_mixed_differently_share_nothing() -> None:
    tasks = {name: encoded(name, task_of(), **SAME) for name in ("one", "two", "three")}
    found = find_shared_texts(tasks, {"one": 0.4, "two": 0.2, "three": 0.4})
    assert [[*one.tasks] for one in found] == [["one", "three"]]


class Noisy(Classification):
    """Reads something else each time."""

    def corrupted(self, batch: Batch, draw: Sequence[int]) -> Batch:  # noqa: ARG002
        return replace(batch)


def test_tasks_that_change_what_they_read_share_nothing() -> None:
    tasks = {
        "one": encoded("one", task_of(), **SAME),
        "noisy": encoded("noisy", task_of(Noisy), **SAME),
    }
    assert find_shared_texts(tasks, dict.fromkeys(tasks, 0.5)) == []


def labels_of(batches: Iterable[Batch | SharedBatch]) -> dict[str, list[tuple[Any, ...]]]:
    """Return by task what is read for it: tokens without padding, and the label."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for batch in batches:
        by_task = batch.batches if isinstance(batch, SharedBatch) else {batch.task: batch}
        for name, one in by_task.items():
            lengths = one.inputs["attention_mask"].sum(1).tolist()
            for tokens, length, label in zip(
                one.inputs["input_ids"].tolist(), lengths, one.labels.tolist(), strict=True
            ):
                found.setdefault(name, []).append((*tokens[:length], label))
    return {name: sorted(rows) for name, rows in found.items()}


def test_an_epoch_reads_what_separate_batches_read_in_half_as_many(tmp_path: Path) -> None:
    tasks = tickets(rows=24)
    apart = [*set_up(tmp_path, tasks).train_dataloader()]
    together = [*set_up(tmp_path, tasks, share_texts=True).train_dataloader()]
    assert (len(apart), len(together)) == (12, 6)
    assert labels_of(together) == labels_of(apart)


def test_rows_without_one_of_the_labels_are_read_for_the_other(tmp_path: Path) -> None:
    tasks = tickets(rows=24, unlabelled=5)
    data = set_up(tmp_path, tasks, share_texts=True)
    together = labels_of(data.train_dataloader())
    assert data.examples == {"department": 24, "urgency": 19}
    assert {name: len(one) for name, one in together.items()} == data.examples
    assert together == labels_of(set_up(tmp_path, tasks).train_dataloader())


def test_shared_texts_are_as_often_as_another_task(tmp_path: Path) -> None:
    tasks = tickets(rows=24) | {"other": tickets(rows=24, seed=7)["urgency"]}

    def counts(**changes: Any) -> tuple[int, int]:
        batches = [*set_up(tmp_path, tasks, share_texts=True, **changes).train_dataloader()]
        of_both = sum(isinstance(batch, SharedBatch) for batch in batches)
        return of_both, len(batches) - of_both

    assert counts() == (6, 6)
    assert counts(mixing=UniformMixing()) == (6, 6)
    weights = {"department": 3, "urgency": 3, "other": 1}
    assert counts(mixing=FixedMixing(weights=weights)) == (9, 3)


def test_a_resumed_module_goes_on_with_the_next_shared_batch(tmp_path: Path) -> None:
    def module() -> MultitaskDataModule:
        return set_up(tmp_path, tickets(rows=24, unlabelled=5), share_texts=True, workers=1)

    def read(batches: Iterable[Batch | SharedBatch]) -> list[Any]:
        return [labels_of([batch]) for batch in batches]

    expected = read(module().train_dataloader())
    stopped = module()
    first = iter(stopped.train_dataloader())
    found = read([next(first), next(first)])
    resumed = module()
    resumed.load_state_dict(stopped.state_dict())
    rest = iter(resumed.train_dataloader())
    assert found + read(next(rest) for _ in range(4)) == expected


def test_ranks_share_the_texts_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tickets(rows=24, unlabelled=5)
    whole = labels_of(set_up(tmp_path, tasks, share_texts=True).train_dataloader())
    found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in tasks}
    for rank in range(2):
        data = set_up(tmp_path, tasks, share_texts=True, batch_size=2)
        monkeypatch.setattr(data, "trainer", place(rank, 2))
        for name, rows in labels_of(data.train_dataloader()).items():
            found[name] += rows
    assert {name: sorted(rows) for name, rows in found.items()} == whole


def test_nothing_to_share_is_refused(tmp_path: Path) -> None:
    tasks = {"urgency": tickets(rows=24)["urgency"]}
    with pytest.raises(ValueError, match=r"^`data\.share_texts` needs tasks with the"):
        set_up(tmp_path, tasks, share_texts=True)


def test_a_shared_batch_is_moved_and_pinned_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = shared(SAME, {"tokens": SAME["tokens"][:2], "labels": [1.0, 2.0]})
    assert texts is not None
    pinned: list[int] = []

    def pin_memory(one: torch.Tensor) -> torch.Tensor:
        pinned.append(id(one))
        return one

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    batch = texts.batch("train", [0, 1, 2])
    batch.pin_memory()
    tensors = [*batch.inputs.values(), *batch.places.values()]
    tensors += [one.labels for one in batch.labels.values()]
    assert set(pinned) == {*map(id, tensors)}
    moved = batch.to(torch.device("meta"))
    parts = [moved.inputs.values(), moved.places.values()]
    assert {one.device.type for part in parts for one in part} == {"meta"}
    assert {one.labels.device.type for one in moved.labels.values()} == {"meta"}
