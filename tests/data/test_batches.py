from collections.abc import Iterable
from itertools import islice

import numpy as np
import pytest
from datasets import Dataset

from multiprune.data.batches import EncodedTask, EvaluationBatches, TrainBatches
from multiprune.data.mixing import BatchPlan
from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.tasks.classification import Classification
from multiprune.tasks.task import Batch

ROWS = {"small": 7, "large": 31}

Seen = list[tuple[str, list[int]]]


def encoded(name: str, count: int) -> EncodedTask:
    """Make a task whose example number ``n`` has ``n`` as its first token."""
    table = Dataset.from_dict(
        {
            "input_ids": [[row, *[99] * (row % 4)] for row in range(count)],
            "labels": [row % 2 for row in range(count)],
        }
    )
    task = Classification(
        text=["sentence"],
        label="label",
        labels=["bad", "good"],
        metrics={"accuracy": Accuracy()},
        source=HubSource(path=None, mirror="nowhere"),
    )
    splits = {"train": table, "validation": table}
    return EncodedTask(name=name, task=task, splits=splits, truncated=0, padding_token=0)


TASKS = {name: encoded(name, count) for name, count in ROWS.items()}


def train_batches(
    *, rank: int = 0, world_size: int = 1, batch_size: int = 6
) -> TrainBatches[Batch]:
    lengths = {name: np.arange(count) % 4 + 1 for name, count in ROWS.items()}
    plan = BatchPlan(
        lengths=lengths,
        probabilities={"small": 0.25, "large": 0.75},
        batch_size=batch_size,
        seed=0,
        sort_window=2,
    )
    return TrainBatches(plan, TASKS, rank=rank, world_size=world_size)


def seen(batches: Iterable[Batch]) -> Seen:
    return [(batch.task, batch.inputs["input_ids"][:, 0].tolist()) for batch in batches]


def test_batch_holds_the_rows_asked_for() -> None:
    batch = TASKS["large"].batch("train", [3, 8])
    assert batch.task == "large"
    assert batch.inputs["input_ids"].tolist() == [[3, 99, 99, 99], [8, 0, 0, 0]]
    assert batch.labels.tolist() == [1, 0]


def test_iteration_yields_the_batches_of_one_epoch_of_the_plan() -> None:
    batches = train_batches()
    assert len(batches) == 2 + 6
    expected = [
        (name, examples.tolist()) for name, examples in islice(batches.plan.batches(), 2 * 8)
    ]
    assert seen(batches) == expected[:8]
    assert seen(batches) == expected[8:]


@pytest.mark.parametrize("served", [0, 1, 3, 7, 8, 13, 16])
def test_loaded_state_continues_exactly(served: int) -> None:
    straight = train_batches()
    expected = seen(straight) + seen(straight) + seen(straight)

    stopped = train_batches()
    found: Seen = []
    while len(found) < served:
        found += seen(islice(stopped, min(len(stopped), served - len(found))))
    resumed = train_batches()
    resumed.load_state_dict(stopped.state_dict())
    assert stopped.state_dict() == {"served": served}
    assert found + seen(resumed) == expected[: served + 8]


def test_abandoned_iteration_is_continued_by_the_next() -> None:
    expected = seen(train_batches())
    batches = train_batches()
    first = seen(islice(batches, 3))
    assert first + seen(batches)[:5] == expected


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_each_batch_of_one_task(world_size: int) -> None:
    # A batch of 6 is whole for 2 and 3 ranks; the last batch of a walk (1 of 7, 1 of 31) is not.
    whole = [
        (name, examples.tolist())
        for name, examples in islice(train_batches().plan.batches(), 3 * 8)
    ]
    by_rank = []
    for rank in range(world_size):
        batches = train_batches(rank=rank, world_size=world_size)
        by_rank.append(seen(batches) + seen(batches) + seen(batches))
    full = 0
    for (name, examples), *parts in zip(whole, *by_rank, strict=True):
        assert {task for task, _ in parts} == {name}
        assert len({len(part) for _, part in parts}) == 1
        together = [example for _, part in parts for example in part]
        assert set(together) == set(examples)
        if len(examples) == 6:
            full += 1
            assert sorted(together) == sorted(examples)
    assert 0 < full < len(whole)


def test_unequal_batch_repeats_no_more_than_needed() -> None:
    # 31 examples in batches of 10: the last has 1, which 3 ranks repeat; 7 of "small" fill up to 9.
    parts = [seen(train_batches(rank=rank, world_size=3, batch_size=10)) for rank in range(3)]
    sizes = {
        (name, len(one) + len(two) + len(three))
        for (name, one), (_, two), (_, three) in zip(*parts, strict=True)
    }
    assert sizes <= {("small", 9), ("large", 12), ("large", 3)}
    assert ("small", 9) in sizes


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 31, 64])
def test_evaluation_covers_each_row_once(world_size: int, batch_size: int) -> None:
    rows: list[int] = []
    for rank in range(world_size):
        batches = EvaluationBatches(
            TASKS["large"], "validation", batch_size=batch_size, rank=rank, world_size=world_size
        )
        found = seen(batches)
        assert len(found) == len(batches)
        assert all(len(examples) <= batch_size for _, examples in found)
        rows += [row for _, examples in found for row in examples]
    assert sorted(rows) == list(range(31))


def test_evaluation_keeps_the_order_and_can_be_repeated() -> None:
    batches = EvaluationBatches(TASKS["small"], "validation", batch_size=3, rank=0, world_size=1)
    expected = [("small", [0, 1, 2]), ("small", [3, 4, 5]), ("small", [6])]
    assert seen(batches) == expected
    assert seen(batches) == expected
