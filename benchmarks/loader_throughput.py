"""How many sequences a second are made to batches, by their length, in the process that trains.

    python benchmarks/loader_throughput.py            # writes results/loader_throughput.json

Rows are drawn from a seed, and so are the batches of 32 of them; processor time counts, the best of
some rounds.
"""

from __future__ import annotations

import argparse
import datetime
import json
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
from multiprune.data.source import HubSource
from multiprune.metrics import Accuracy
from multiprune.tasks.classification import Classification

if TYPE_CHECKING:
    from datasets import Dataset

RESULTS = Path(__file__).parent / "results" / "loader_throughput.json"
SEED, ROWS, PART, BATCH, BATCHES = 0, 20_000, 500, 32, 40


def main() -> None:
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[95, 128, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    table = Table("tokens", "ms a batch", "sequences a second")
    runs = []
    for length in options.lengths:
        with tempfile.TemporaryDirectory() as folder:
            task = encoded(Path(folder) / "rows", length)
            seconds = min(spent(task) for _ in range(options.rounds))
        runs.append({"tokens": length, "ms": seconds * 1e3, "sequences": BATCH / seconds})
        table.add_row(f"{length}", f"{seconds * 1e3:.2f}", f"{BATCH / seconds:,.0f}")
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU used",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/loader_throughput.py", *sys.argv[1:]]),
        "seed": SEED,
        "unit": f"processor time of a batch of {BATCH}, in one process",
        "runs": runs,
    }
    options.results.write_text(json.dumps(result, indent=1) + "\n")
    Console().print(table)


def encoded(place: Path, length: int) -> EncodedTask:
    """Return a task whose encoded rows lie on the disk, as those of a run do."""
    draw = np.random.default_rng(SEED)

    def part() -> dict[str, list[object]]:
        ids = draw.integers(0, 30_000, (PART, length))
        return {
            "input_ids": [*ids],
            "token_type_ids": [[0] * length] * PART,
            "labels": [0, 1] * (PART // 2),
        }

    table: Dataset = stored(place, lambda: ((part(), 0) for _ in range(ROWS // PART)))[0]
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


if __name__ == "__main__":
    main()
