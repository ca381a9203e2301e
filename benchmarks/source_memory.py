"""How much memory it takes to load rows from the hub, from a generator, and from parallel texts.

    python benchmarks/source_memory.py --rows 100000

Each kind is loaded once in a process of its own with an empty cache, in MB above what the process
has when all modules are imported and a few rows were loaded. Memory of the process's own is told
beside: the rest are files that are mapped, which the system may take away at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from data_memory import MB, SEED, Peak, memory, words
from rich.console import Console
from rich.table import Table

KINDS = ("hub", "generated", "comparable")
LABELS = ["no", "yes"]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measured(options.kinds[0], options.measure)))
        return
    table = Table("kind", "rows", "peak MB", "own memory MB", "seconds")
    for kind in options.kinds:
        for rows in options.rows:
            run = in_own_process(kind, rows)
            numbers = [f"{run[name]:.1f}" for name in ("peak", "own", "seconds")]
            table.add_row(kind, f"{rows:,}", *numbers)
    Console().print(table)


def in_own_process(kind: str, rows: int) -> dict[str, float]:
    """Measure one kind in a fresh process with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--kinds", kind, "--measure", str(rows)]
        environment = {**os.environ, "XDG_CACHE_HOME": cache, "HF_HOME": f"{cache}/hub"}
        run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(run.stdout)
    return found


def measured(kind: str, rows: int) -> dict[str, float]:
    """Load rows, and a few before, so that all is imported."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        small, large = (source(kind, Path(folder), count) for count in (30, rows))
        small.load("test", mirror=None)
        # What making the files took does not count.
        Path("/proc/self/clear_refs").write_text("5")
        before, peak, start = memory(), Peak(), time.perf_counter()
        loaded = large.load("test", mirror=None)
        seconds = time.perf_counter() - start
        assert len(loaded.table) >= rows // 3
        return {"peak": (memory("VmHWM") - before) / MB, "own": peak.own() / MB, "seconds": seconds}


def source(kind: str, folder: Path, rows: int) -> Any:
    """Return a source of rows, whose files are written."""
    from multiprune.data.comparable import ComparableCorpus
    from multiprune.data.hub import HubLayout
    from multiprune.data.source import FileSource, GeneratedSource, HubSource

    if kind == "generated":
        return GeneratedSource(generator=generated, rows={"test": rows})
    file = written(folder, kind, rows)
    if kind == "hub":
        pretend_hub(file)
        layout = HubLayout(
            configurations={"de": str(file)},
            columns={"answer_text": "answers.text", "answer_start": "answers.answer_start"},
            named=["label"],
            numbered="idx",
            stripped=["question"],
            aligned=["context", "answer_text", "answer_start"],
        )
        return HubSource(path="owner/name", layout=layout)
    parallel = FileSource(files={"test": file})
    return Compared(ComparableCorpus(source=parallel, text=["sentence", "english"]))


class Compared:
    """Gives the test part of a comparable corpus."""

    def __init__(self, corpus: Any) -> None:
        self.load = corpus.load


def pretend_hub(file: Path) -> None:
    """Have configurations of repositories be parquet files, of which one is there already."""
    import datasets

    original: Any = datasets.Dataset.from_parquet
    datasets.get_dataset_split_names = lambda *_: ["test"]
    datasets.load_dataset = lambda _, file, **__: original(file)
    # Downloaded before, as it were.
    original(str(file))


def generated(count: int, seed: int) -> Any:
    """Draw pairs of sentences."""
    draw, known = random.Random(seed), words()
    for first in range(0, count, 1000):
        size = min(1000, count - first)
        yield {
            "sentence1": [sentence(draw, known) for _ in range(size)],
            "sentence2": [sentence(draw, known) for _ in range(size)],
            "label": [draw.randrange(2) for _ in range(size)],
        }


def sentence(draw: random.Random, known: list[str]) -> str:
    """Draw some words."""
    return " ".join(draw.choices(known, k=draw.randint(8, 20)))


def written(folder: Path, kind: str, rows: int) -> Path:
    """Write questions with answers as the hub has them, or pairs of sentences."""
    import pyarrow
    from datasets import ClassLabel, Features, List, Value
    from pyarrow import parquet

    draw, known, file = random.Random(SEED), words(), folder / f"{kind}-{rows}.parquet"
    text = Value("string")
    features = Features(sentence=text, english=text, lang=text)
    if kind == "hub":
        answers = {"text": List(text), "answer_start": List(Value("int32"))}
        features = Features(
            context=text, question=text, answers=answers, label=ClassLabel(names=LABELS)
        )
    with parquet.ParquetWriter(file, features.arrow_schema) as writer:
        for first in range(0, rows, 1000):
            size = min(1000, rows - first)
            texts = [sentence(draw, known) for _ in range(2 * size)]
            columns: dict[str, list[Any]] = {
                "sentence": texts[:size], "english": texts[size:], "lang": ["de"] * size,
            }  # fmt: skip
            if kind == "hub":
                columns = {
                    "context": texts[:size],
                    "question": [f" {one} " for one in texts[size:]],
                    "answers": [
                        {"text": [one.split()[1]], "answer_start": [one.index(" ")]}
                        for one in texts[:size]
                    ],
                    "label": [draw.randrange(2) for _ in range(size)],
                }
            writer.write_table(pyarrow.table(columns, schema=features.arrow_schema))
    return file


if __name__ == "__main__":
    main()
