"""How long a thousand folders of runs take to read, compare, share a budget among, and report.

    python benchmarks/read_runs.py RUN
    python benchmarks/read_runs.py RUN --folders 1000 --tasks 10

Copies ``results.json`` and ``.hydra`` of one finished run, so that folders are as large as real
ones: as runs of each of a few made-up tasks and of all of them, with 20 sizes and as many seeds as
it takes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from multiprune.budget import CountBudget
from multiprune.report.comparison import comparable, methods
from multiprune.report.ensemble import Request, best_ensemble
from multiprune.report.frame import read_runs

SIZES = 20
COMMAND = (sys.executable, "-c", "from multiprune.cli import main; main()", "report")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        copy_runs(options.run, Path(name), options.folders, options.tasks)
        start = time.perf_counter()
        frame = read_runs(Path(name))
        read = time.perf_counter()
        comparable(frame.rows)
        groups = methods(frame.rows)
        compared = time.perf_counter()
        budget = CountBudget(count=frame.rows[0].dense * options.tasks // 3)
        for method, rows in groups.items():
            best_ensemble(method, rows, Request(budget))
        shared = time.perf_counter()
        subprocess.run([*COMMAND, name, "--out", f"{name}/report"], check=True)
        reported = time.perf_counter()
        size = (Path(name) / "report" / "index.html").stat().st_size
    assert len(frame.rows) == options.folders
    table = Table(f"{options.folders} runs", "seconds")
    table.add_row("read", f"{read - start:.2f}")
    table.add_row("compare, group by method", f"{compared - read:.2f}")
    table.add_row(f"share among {options.tasks} tasks", f"{shared - compared:.2f}")
    table.add_row(
        f"multiprune report, a process of its own, a page of {size / 1e6:.1f} MB",
        f"{reported - shared:.2f}",
    )
    Console().print(table)


def copy_runs(run: Path, target: Path, folders: int, tasks: int) -> None:
    """Write runs of one task each, and of all, by the results of ``run``."""
    content: dict[str, Any] = json.loads((run / "results.json").read_text())
    first = next(iter(content["config"]["task"]))
    definition = content["config"]["task"][first]
    metric = next(iter(definition["metrics"]))
    generator = random.Random(0)
    names = [f"task{number}" for number in range(tasks)]
    for number in range(folders):
        which = number % (tasks + 1)
        own = names[which : which + 1] or names
        size = number // (tasks + 1) % SIZES + 1
        kept = content["budget"]["dense"] * size // SIZES
        changed = {
            "validation": {task: {metric: generator.random()} for task in own},
            "test": {},
            "examples": dict.fromkeys(own, 1000),
            "budget": content["budget"] | {"asked": kept, "kept": kept},
            "ledger": [
                one | {"kept": kept} if one["part"] == "encoder_linear" else one
                for one in content["ledger"]
            ],
            "seed": number // (tasks + 1) // SIZES,
            "config": content["config"] | {"task": dict.fromkeys(own, definition)},
        }
        folder = target / "sweep" / str(number)
        shutil.copytree(run / ".hydra", folder / ".hydra")
        (folder / "results.json").write_text(json.dumps(content | changed, indent=2))


if __name__ == "__main__":
    main()
