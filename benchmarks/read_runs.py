"""How long a thousand folders of runs take to read, compare, share a budget among, and report.

    python benchmarks/read_runs.py RUN
    python benchmarks/read_runs.py RUN --folders 1000 --tasks 10

Copies ``results.json`` and ``.hydra`` of one finished run, so that folders are as large as real
ones: as runs of each of a few made-up tasks and of all of them, with 20 sizes and as many seeds as
it takes, and with answers to so many examples of validation and as many of test data a task.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from multiprune.budget import CountBudget
from multiprune.metrics import Accuracy
from multiprune.metrics.catalogue import recorded
from multiprune.metrics.terms import MetricTerms
from multiprune.report.ensembles import Request, best_ensemble
from multiprune.report.methods import check_comparable, methods
from multiprune.runs.frame import read_runs
from multiprune.runs.predictions import Answers, write_predictions

SIZES = 20
METRIC = {"_target_": "multiprune.metrics.Accuracy"}
COMMAND = (sys.executable, "-c", "from multiprune.cli import main; main()", "report")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--examples", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        copy_runs(options.run, Path(name), options)
        clock = [seconds()]
        found = read_runs(Path(name))
        clock.append(seconds())
        check_comparable(found.finished)
        groups = methods(found.finished)
        clock.append(seconds())
        budget = CountBudget(count=found.finished[0].budget.dense * options.tasks // 3)
        for method, runs in groups.items():
            best_ensemble(method, runs, Request(budget))
        clock.append(seconds())
        subprocess.run([*COMMAND, name, "--out", f"{name}/report"], check=True)
        clock.append(seconds())
        size = (Path(name) / "report" / "index.html").stat().st_size
    assert len(found.finished) == options.folders
    table = Table(f"{options.folders} runs", "seconds", "processor seconds")
    steps = [
        "read",
        "compare, group by method",
        f"share among {options.tasks} tasks",
        f"multiprune report, a process of its own, a page of {size / 1e6:.1f} MB",
    ]
    for step, (before, after) in zip(steps, pairwise(clock), strict=True):
        table.add_row(
            step, *(f"{end - start:.2f}" for start, end in zip(before, after, strict=True))
        )
    Console().print(table)


def seconds() -> tuple[float, float]:
    """Return a clock's time, and that of the processor for this process and those it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime


def copy_runs(run: Path, target: Path, options: argparse.Namespace) -> None:
    """Write runs of one task each, and of all, by the results of ``run``."""
    content: dict[str, Any] = json.loads((run / "results.json").read_text())
    definition = next(iter(content["config"]["task"].values())) | {"metrics": {"accuracy": METRIC}}
    record = next(iter(content["tasks"].values())) | {"metrics": {"accuracy": recorded(Accuracy())}}
    shared = {key: one for key, one in content["settings"].items() if not key.startswith("task.")}
    generator = np.random.default_rng(0)
    names = [f"task{number}" for number in range(options.tasks)]
    for number in range(options.folders):
        which = number % (options.tasks + 1)
        own = names[which : which + 1] or names
        size = number // (options.tasks + 1) % SIZES + 1
        kept = content["budget"]["dense"] * size // SIZES
        answers = {
            split: {task: answers_of(generator, options.examples) for task in own}
            for split in ("validation", "test")
        }
        changed = {
            **{split: scores(by_task) for split, by_task in answers.items()},
            "examples": dict.fromkeys(own, 1000),
            "budget": content["budget"] | {"asked": kept, "kept": kept},
            "ledger": [
                one | {"kept": kept} if one["part"] == "encoder_linear" else one
                for one in content["ledger"]
            ],
            "seed": number // (options.tasks + 1) // SIZES,
            "config": content["config"] | {"task": dict.fromkeys(own, definition)},
            "tasks": dict.fromkeys(own, record),
            "settings": shared | {"seed": number // (options.tasks + 1) // SIZES},
        }
        folder = target / "sweep" / str(number)
        shutil.copytree(run / ".hydra", folder / ".hydra")
        terms = {
            split: {task: terms_of(one) for task, one in by_task.items()}
            for split, by_task in answers.items()
        }
        write_predictions(folder, answers, terms)
        (folder / "results.json").write_text(json.dumps(content | changed, indent=2))


def answers_of(generator: np.random.Generator, examples: int) -> Answers:
    """Return answers that are right or not by chance; all labels are 1."""
    right = torch.from_numpy(generator.random(examples) < generator.random()).long()
    return Answers(right, torch.ones_like(right), torch.arange(examples))


def terms_of(answers: Answers) -> MetricTerms:
    """Return what each example adds to the accuracy."""
    right = answers.predictions.double()
    one = torch.zeros_like(answers.examples)
    counts = torch.stack([right, torch.ones_like(right)], 1)
    return MetricTerms(counts, answers.examples, one, answers.examples)


def scores(answers: dict[str, Answers]) -> dict[str, dict[str, float]]:
    """Return the accuracy of each task."""
    return {
        task: {"accuracy": float(one.predictions.double().mean())} for task, one in answers.items()
    }


if __name__ == "__main__":
    main()
