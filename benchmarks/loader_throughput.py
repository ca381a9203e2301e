"""How many sequences a second are made to batches, by their length, and by how many workers.

    python benchmarks/loader_throughput.py            # writes results/loader_throughput.json

Rows are drawn from a seed, and so are the batches of 32 of them. In the process that trains,
processor time counts. Of workers, what they deliver counts to a process that does nothing else, in
wall time, and the processor time that receiving takes; then the private memory of a worker, for
some rows and for five times as many. Always the best of some rounds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from multiprune.data.batches import EncodedTask
from multiprune.data.cache import stored
from multiprune.data.loader import Loader, Request
from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.tasks.classification import Classification

if TYPE_CHECKING:
    from datasets import Dataset

RESULTS = Path(__file__).parent / "results" / "loader_throughput.json"
SEED, ROWS, PART, BATCH, BATCHES = 0, 20_000, 500, 32, 40
WORKERS_LENGTH, DELIVERED = 128, 300


def main() -> None:
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[95, 128, 256])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    load = os.getloadavg()[1]
    table = Table("tokens", "ms a batch", "sequences a second")
    runs = []
    for length in options.lengths:
        with tempfile.TemporaryDirectory() as folder:
            task = encoded(Path(folder) / "rows", length)
            seconds = min(spent(task) for _ in range(options.rounds))
        runs.append({"tokens": length, "ms": seconds * 1e3, "sequences": BATCH / seconds})
        table.add_row(f"{length}", f"{seconds * 1e3:.2f}", f"{BATCH / seconds:,.0f}")
    ahead = Table("workers", "rows", "sequences a second", "ms of training process", "MB a worker")
    delivered = []
    for rows in (ROWS, 5 * ROWS):
        with tempfile.TemporaryDirectory() as folder:
            task = encoded(Path(folder) / "rows", WORKERS_LENGTH, rows)
            for workers in options.workers:
                found = [delivery(task, workers) for _ in range(options.rounds)]
                best = max(found, key=lambda one: one["sequences"])
                delivered.append({"workers": workers, "rows": rows, **best})
                ahead.add_row(
                    *(f"{one:,}" for one in (workers, rows)), f"{best['sequences']:,.0f}",
                    f"{best['ms']:.2f}", f"{best['private']:.1f}",
                )  # fmt: skip
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU used",
        "load": f"{load:.1f} other processes ran on average when this began",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/loader_throughput.py", *sys.argv[1:]]),
        "seed": SEED,
        "unit": f"processor time of a batch of {BATCH}, in one process",
        "runs": runs,
        "workers_unit": f"{WORKERS_LENGTH} tokens; processor time of receiving a batch of {BATCH}, "
        "in the process that trains; private memory of a worker in MB",
        "workers": delivered,
    }
    options.results.write_text(json.dumps(result, indent=1) + "\n")
    Console().print(table, ahead)


def encoded(place: Path, length: int, rows: int = ROWS) -> EncodedTask:
    """Return a task whose encoded rows lie on the disk, as those of a run do."""
    draw = np.random.default_rng(SEED)

    def part() -> dict[str, list[object]]:
        ids = draw.integers(0, 30_000, (PART, length))
        return {
            "input_ids": [*ids],
            "token_type_ids": [[0] * length] * PART,
            "labels": [0, 1] * (PART // 2),
        }

    table: Dataset = stored(place, lambda: ((part(), 0) for _ in range(rows // PART)))[0]
    task = Classification(
        text=["text"],
        label="label",
        labels=["no", "yes"],
        metrics={"accuracy": Accuracy()},
        source=HubSource(path=None, mirror="nowhere"),
    )
    return EncodedTask(
        name="task", task=task, splits={"train": table}, truncated=0, padding_token=0
    )


def spent(task: EncodedTask) -> float:
    """Return the processor time that a batch takes, in seconds."""
    draw = np.random.default_rng(SEED)
    start = time.process_time()
    for _ in range(BATCHES):
        task.batch("train", draw.permutation(ROWS)[:BATCH].tolist())
    return (time.process_time() - start) / BATCHES


def delivery(task: EncodedTask, workers: int) -> dict[str, float]:
    """Return what workers deliver once they have begun, and what it takes to receive that."""
    draw, rows = np.random.default_rng(SEED), len(task.splits["train"])
    requests = [
        Request(task.name, "train", draw.integers(0, rows, BATCH).tolist())
        for _ in range(DELIVERED)
    ]
    batches = Loader(workers).batches({task.name: task}, requests)
    next(batches)
    start, processor = time.perf_counter(), time.process_time()
    for _ in range(DELIVERED - 2):
        next(batches)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    private = [private_memory(one.pid) for one in multiprocessing.active_children()]
    assert len(list(batches)) == 1
    return {
        "sequences": BATCH * (DELIVERED - 2) / seconds,
        "ms": processor / (DELIVERED - 2) * 1e3,
        "private": max(private, default=0.0),
    }


def private_memory(pid: int | None) -> float:
    """Return the memory in MB that a process shares with no other and no file."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024


if __name__ == "__main__":
    main()
