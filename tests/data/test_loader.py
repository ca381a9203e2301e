from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from masked_task import masked_task
from randomness import DrawsRandomNumbers
from streamed_world import TOKENIZER, data_module, read, streamed, take, write_lines

from multiprune.data import loader as loader_module
from multiprune.data.batches import EncodedTask, EvaluationBatches, TrainBatches
from multiprune.data.cache import stored
from multiprune.data.loader import Loader, check_sendable
from multiprune.data.mixing import BatchPlan
from multiprune.data.source import GeneratedSource
from multiprune.metrics import Accuracy
from multiprune.tasks.synthetic import agreement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from multiprune.tasks.task import Batch, Task

ROWS = {"labelled": 13, "masked": 31}


def classification(**changes: Any) -> Task:
    arguments: dict[str, Any] = {
        "text": ["sentence"],
        "label": "label",
        "labels": ["bad", "good"],
        "metrics": {"accuracy": Accuracy()},
        "source": GeneratedSource(generator=agreement, rows={"train": 3}),
    }
    return DrawsRandomNumbers(**arguments | changes)


def encoded(folder: Path, name: str, task: Task, rows: int) -> EncodedTask:
    """Return a task whose rows are mapped from a file, as those of a run are."""
    tokens = [[5 + row, *[9] * (row % 4), 7, 8] for row in range(rows)]
    words = [[*range(len(one))] for one in tokens]
    labels = words if task.output.over_vocabulary else [row % 2 for row in range(rows)]
    columns = {"input_ids": tokens, "labels": labels}
    table, _ = stored(folder / name, lambda: [(columns, 0)])
    splits = {"train": table, "validation": table}
    return EncodedTask(name=name, task=task, splits=splits, truncated=0, padding_token=0)


def encoded_tasks(folder: Path) -> dict[str, EncodedTask]:
    tasks = {"labelled": classification(), "masked": masked_task().read_by(TOKENIZER)}
    return {name: encoded(folder, name, task, ROWS[name]) for name, task in tasks.items()}


def train_batches(folder: Path, workers: int) -> TrainBatches[Batch]:
    plan = BatchPlan(
        lengths={name: np.arange(rows) % 4 + 3 for name, rows in ROWS.items()},
        probabilities={"labelled": 0.3, "masked": 0.7},
        batch_size=4,
        seed=0,
        sort_window=2,
    )
    tasks = encoded_tasks(folder)
    return TrainBatches(plan, tasks, rank=0, world_size=1, loader=Loader(workers))


def content(batches: Iterable[Batch]) -> list[tuple[Any, ...]]:
    """Return all that batches hold, with the types of tensors."""
    return [
        (
            batch.task,
            {name: (one.dtype, one.tolist()) for name, one in batch.inputs.items()},
            (batch.labels.dtype, batch.labels.tolist()),
            [*batch.rows],
            [*batch.examples],
        )
        for batch in batches
    ]


def workers_now() -> list[int]:
    return [one.pid for one in multiprocessing.active_children() if one.pid is not None]


@pytest.fixture
def expected(tmp_path: Path) -> list[tuple[Any, ...]]:
    """Two epochs, made in this process."""
    batches = train_batches(tmp_path, 0)
    return content(batches) + content(batches)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_makes_the_same_batches(
    tmp_path: Path, expected: list[tuple[Any, ...]], workers: int
) -> None:
    batches = train_batches(tmp_path, workers)
    assert content(batches) + content(batches) == expected
    assert {name for name, *_ in expected} == {*ROWS}
    assert workers_now() == []


@pytest.mark.parametrize("served", [1, 5, 12])
def test_what_is_made_ahead_does_not_count_as_served(
    tmp_path: Path, expected: list[tuple[Any, ...]], served: int
) -> None:
    # An epoch has 12 batches, of which 4 are ahead.
    stopped = train_batches(tmp_path, 2)
    first = content(islice(stopped, served))
    assert stopped.state_dict() == {"served": served}
    resumed = train_batches(tmp_path, 1)
    resumed.load_state_dict(stopped.state_dict())
    assert first + content(resumed) == expected[: served + 12]
    # As does the one that was stopped.
    assert content(stopped) == expected[served : served + 12]


def test_evaluation_is_the_same_with_workers(tmp_path: Path) -> None:
    found = [
        content(
            EvaluationBatches(
                one, "validation", batch_size=5, rank=0, world_size=1, loader=Loader(workers)
            )
        )
        for one in encoded_tasks(tmp_path).values()
        for workers in (0, 2)
    ]
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert [len(one) for one in found] == [3, 3, 7, 7]


def test_the_random_state_of_the_model_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    batches = iter(train_batches(tmp_path, 1))
    next(batches)
    assert torch.random.get_rng_state().equal(before)


def test_signals_to_all_processes_of_a_job_end_no_worker(
    tmp_path: Path, expected: list[tuple[Any, ...]]
) -> None:
    batches = iter(train_batches(tmp_path, 2))
    first = content([next(batches)])
    workers = workers_now()
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    assert first + content(batches) == expected[:12]


def test_a_worker_that_is_killed_is_named_in_a_sentence(tmp_path: Path) -> None:
    batches = iter(train_batches(tmp_path, 2))
    next(batches)
    pid = workers_now()[-1]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=r"\(out of memory\?\): start the same") as error:
        list(batches)
    place = {str(error.value).partition(":")[0]}
    assert place <= {
        f"Worker {number} of 2 of `data.workers` (process {pid}) was killed by SIGKILL "
        "(out of memory?)"
        for number in (1, 2)
    }


LEFT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_loader import train_batches
if __name__ == "__main__":
    batches = iter(train_batches(Path(sys.argv[1]), 2))
    next(batches)
    sys.kept = batches
"""


@pytest.mark.slow
def test_a_process_ends_although_it_has_not_read_all_batches(tmp_path: Path) -> None:
    script = tmp_path / "left.py"
    script.write_text(LEFT)
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    subprocess.run([sys.executable, script, tmp_path, *folders], check=True, timeout=300)


KILLED = """
import multiprocessing, os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_loader import train_batches
if __name__ == "__main__":
    batches = iter(train_batches(Path(sys.argv[1]), 2))
    next(batches)
    Path(sys.argv[1], "pids").write_text(" ".join(
        str(one.pid) for one in multiprocessing.active_children()
    ))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_workers_end_when_the_process_that_trains_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    process = subprocess.run(
        [sys.executable, script, tmp_path, *folders], check=False, stderr=subprocess.DEVNULL
    )
    assert process.returncode == -signal.SIGKILL
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    deadline = time.monotonic() + 30
    while any(Path("/proc", pid).exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in pids if Path("/proc", pid).exists()] == []


def test_an_error_in_a_worker_stays_what_it_is(tmp_path: Path) -> None:
    batches = train_batches(tmp_path, 1)
    batches.plan.lengths["masked"].resize(ROWS["masked"] + 99, refcheck=False)
    with pytest.raises(IndexError, match="worker process 0"):
        list(batches)


def test_workers_are_sent_no_rows(tmp_path: Path) -> None:
    rows = 4_000
    one = encoded(tmp_path, "large", classification(), rows)
    sent = pickle.dumps(loader_module._Batches({"large": one}))
    assert one.splits["train"].data.nbytes > 20 * rows
    assert len(sent) < 10_000
    assert content([pickle.loads(sent).texts["large"].batch("train", [rows - 1])]) == content(
        [one.batch("train", [rows - 1])]
    )


def test_sources_and_metrics_need_not_be_sent(tmp_path: Path) -> None:
    source = GeneratedSource(generator=lambda *_: {}, rows={"train": 3})
    check_sendable({"one": encoded(tmp_path, "one", classification(source=source), 3)})


def test_a_task_that_cannot_be_sent_is_refused_by_its_name(tmp_path: Path) -> None:
    task = classification()
    task.language_groups = lambda: 3  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"^`data\.workers` must be 0 .* as mine: Can't pickle"):
        check_sendable({"mine": encoded(tmp_path, "mine", task, 3)})


@pytest.mark.parametrize("served", [0, 3, 9])
def test_streams_are_read_where_they_are_asked_for_and_the_others_ahead(
    tmp_path: Path, served: int
) -> None:
    tasks: dict[str, Task] = {
        "agreement": classification(
            source=GeneratedSource(generator=agreement, rows={"train": 24, "validation": 8})
        ),
        "mlm": streamed(write_lines(tmp_path / "corpus")),
    }
    cache = tmp_path / "cache"
    straight = data_module(cache, tasks).train_dataloader()
    stopped = data_module(cache, tasks, workers=2).train_dataloader()
    expected = take(straight, served)
    assert read(take(stopped, served)) == read(expected)
    assert stopped.state_dict() == straight.state_dict()
    resumed = data_module(cache, tasks, workers=1)
    resumed.load_state_dict(stopped.state_dict())
    further = take(straight, 12)
    assert {batch.task for batch in further} == {*tasks}
    assert read(take(resumed.train_dataloader(), 12)) == read(further)


def test_batches_for_cuda_are_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []

    def pin_memory(one: torch.Tensor) -> torch.Tensor:
        pinned.append(one)
        return one

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    batches = train_batches(tmp_path, 0)
    batches.loader = Loader(is_pinned=True)
    batch = next(iter(batches))
    assert {*map(id, pinned)} == {id(one) for one in [*batch.inputs.values(), batch.labels]}
