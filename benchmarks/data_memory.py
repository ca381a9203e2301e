"""How much memory reading and encoding a task takes, by how many rows its file has.

    python benchmarks/data_memory.py                     # writes results/data_memory.json
    python benchmarks/data_memory.py --rows 1000 10000 --kinds csv

Each file of pairs is made from a seed and measured in a process of its own, which starts with an
empty cache: from its path to the first batch, in MB above what the process has when all modules are
imported. What is written to the disk and mapped to memory counts as long as it is in memory, though
the system may take it away at any time; memory of the process's own is told beside.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import random
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "data_memory.json"
SEED = 0
WORDS = 2000
MB = 1024 * 1024


def main() -> None:
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", default=["parquet", "csv", "jsonl"])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--before", type=Path, help="results of another version, kept beside")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measured(options.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = [
            in_own_process(written(Path(folder), kind, rows), rows)
            for kind in options.kinds
            for rows in options.rows
        ]
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU used",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/data_memory.py", *sys.argv[1:]]),
        "seed": SEED,
        "unit": "MB above imports",
        "runs": found,
    }
    if options.before is not None:
        result["before"] = json.loads(options.before.read_text())["runs"]
    options.results.write_text(json.dumps(result, indent=1) + "\n")
    show(found)


def show(found: list[dict[str, Any]]) -> None:
    """Print what was measured."""
    table = Table("kind", "rows", "file MB", "peak MB", "own memory MB", "seconds")
    for run in found:
        numbers = [run[name] for name in ("file", "peak", "own", "seconds")]
        table.add_row(run["kind"], f"{run['rows']:,}", *(f"{one:.1f}" for one in numbers))
    Console().print(table)


def written(folder: Path, kind: str, rows: int) -> Path:
    """Write a file of pairs of sentences with a label of two."""
    import pyarrow
    from pyarrow import parquet

    draw = random.Random(SEED)
    known = words()
    file = folder / f"pairs-{rows}.{kind}"

    def pairs(count: int) -> dict[str, list[Any]]:
        texts = [[" ".join(draw.choices(known, k=draw.randint(8, 20))) for _ in range(count)]
                 for _ in range(2)]  # fmt: skip
        labels = [draw.choice(["no", "yes"]) for _ in range(count)]
        return {"sentence1": texts[0], "sentence2": texts[1], "label": labels}

    sizes = [min(10_000, rows - first) for first in range(0, rows, 10_000)]
    if kind == "parquet":
        schema = pyarrow.schema(dict.fromkeys(("sentence1", "sentence2", "label"), "string"))
        with parquet.ParquetWriter(file, schema) as writer:
            for size in sizes:
                writer.write_table(pyarrow.table(pairs(size), schema=schema))
        return file
    with file.open("w", newline="") as stream:
        lines = csv.writer(stream)
        if kind == "csv":
            lines.writerow(("sentence1", "sentence2", "label"))
        for size in sizes:
            columns = pairs(size)
            for row in zip(*columns.values(), strict=True):
                if kind == "csv":
                    lines.writerow(row)
                else:
                    stream.write(json.dumps(dict(zip(columns, row, strict=True))) + "\n")
    return file


def words() -> list[str]:
    """Return the words of all sentences."""
    draw, letters = random.Random(SEED), "abcdefghijklmnopqrstuvwxyz"
    return ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(WORDS)]


def in_own_process(file: Path, rows: int) -> dict[str, Any]:
    """Measure one file in a fresh process with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--measure", str(file)]
        environment = {**os.environ, "XDG_CACHE_HOME": cache, "HF_HOME": f"{cache}/hub"}
        run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    kind, size = file.suffix[1:], file.stat().st_size / MB
    file.unlink()
    return {"kind": kind, "rows": rows, "file": size, **json.loads(run.stdout)}


def measured(file: Path) -> dict[str, float]:
    """Read and encode a file as training does, up to the first batch."""
    import datasets  # noqa: F401
    import pyarrow.parquet

    from multiprune.data.datamodule import MultitaskDataModule
    from multiprune.data.mixing import ProportionalMixing
    from multiprune.data.source import FileSource
    from multiprune.data.tokenizer import train_tokenizer
    from multiprune.metrics import Accuracy
    from multiprune.tasks.classification import Classification

    small = file.with_name("small.parquet")
    rows = {"sentence1": ["a"] * 4, "sentence2": ["b"] * 4, "label": ["no", "yes"] * 2}
    pyarrow.parquet.write_table(pyarrow.table(rows), small)
    lines = file.with_name("words.txt")
    lines.write_text("\n".join(words()))
    tokenizer = train_tokenizer([lines], kind="wordpiece", size=1000)

    def first_batch(train: Path) -> None:
        task = Classification(
            text=["sentence1", "sentence2"],
            label="label",
            labels=["no", "yes"],
            metrics={"accuracy": Accuracy()},
            source=FileSource(files={"train": train, "validation": small}),
        )
        data = MultitaskDataModule(
            tasks={"pairs": task},
            tokenizer=tokenizer,
            max_length=128,
            batch_size=32,
            mixing=ProportionalMixing(),
        )
        data.prepare_data()
        data.setup()
        next(iter(data.train_dataloader()))

    # Imports what is imported late.
    first_batch(small)
    before = memory()
    peak = Peak()
    start = time.perf_counter()
    first_batch(file)
    seconds = time.perf_counter() - start
    return {
        "peak": (memory("VmHWM") - before) / MB,
        "own": peak.own() / MB,
        "seconds": seconds,
    }


class Peak:
    """Watches the memory of this process's own, which is not that of mapped files."""

    def __init__(self) -> None:
        self._start = self._most = memory("RssAnon")
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def own(self) -> int:
        """Return by how much it has grown at most, in bytes."""
        self._ended.set()
        self._watcher.join()
        return self._most - self._start

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self._most = max(self._most, memory("RssAnon"))


def memory(name: str = "VmRSS") -> int:
    """Return a figure of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return int(found[name].split()[0]) * 1024


if __name__ == "__main__":
    main()
