"""What pruners keep of a dense model on real tasks, at equal steps, with several seeds.

    python benchmarks/evidence.py --mirror ../shared/data --encoder ../shared/models/minilm-l6
    python benchmarks/evidence.py … --only strong_fisher_0.1 --jobs 2
    python benchmarks/evidence.py --print

Trains what ``benchmarks/results/evidence.json`` does not have yet, in the order of ROWS, and adds
each run there once it is finished; a run that was stopped goes on. All have STEPS steps, three
epochs. But for the rows called plain, the first two are dense, and shared by all runs of one seed:
what ``recipe=strong`` does in one run. The dense model has the third epoch, too, with the learning
rate that begins anew.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import mean
from threading import Lock
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from small_runs import RESULTS, ROOT, TRAIN

from multiprune.runs.atomic import atomic_file
from multiprune.runs.folder import has_results
from multiprune.runs.record import RunRecord
from multiprune.training.precision import best_precision

if TYPE_CHECKING:
    from pathlib import Path

FILE = RESULTS / "evidence.json"
RUNS = ROOT / "runs" / "evidence"
STEPS = 6093
DENSE_STEPS = 4062
COMMON = (
    "experiment=glue_core_minilm", "trainer=cpu", "data.batch_size=16",
    "trainer.enable_progress_bar=false",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What is trained in which way, with each of some seeds."""

    recipe: str
    pruner: str
    density: float
    seeds: tuple[int, ...]
    settings: tuple[str, ...] = ()
    tag: str = ""

    @property
    def name(self) -> str:
        """How ``--only`` and the folders of its runs call it."""
        return f"{self.recipe}_{self.pruner}_{self.density:g}{self.tag}"

    def overrides(self, seed: int, encoder: str) -> list[str]:
        """Return what is said to ``train.py`` beside what all runs have in common."""
        budget = "budget=full" if self.density == 1 else f"budget.fraction={self.density}"
        asked = [f"pruner={self.pruner}", budget, f"seed={seed}", *self.settings]
        if self.recipe == "start":
            return [*asked, f"encoder.path={encoder}", f"trainer.max_steps={DENSE_STEPS}"]
        if self.recipe == "plain":
            return [*asked, f"encoder.path={encoder}", f"trainer.max_steps={STEPS}"]
        asked += [f"encoder.path={RUNS / start(seed).folder(seed)}"]
        asked += [f"trainer.max_steps={STEPS - DENSE_STEPS}"]
        if self.recipe == "dense":
            return asked
        # What the recipe's schedule has left of its own steps once the dense part is over.
        schedule = ["schedule.start=0", "schedule.stop=0.7"]
        if self.recipe == "strong_at_once":
            schedule = ["schedule.at=0.05"]  # what is gathered before the cut needs some steps
        return [f"recipe={self.recipe}", *asked, *schedule]

    def folder(self, seed: int) -> str:
        """Return the name of the folder of a run."""
        return f"{self.name}_seed-{seed}"


def start(seed: int) -> Row:
    """Return the dense epochs that runs of a seed begin with."""
    return Row("start", "none", 1, (seed,))


FAST = ("optimizer.learning_rate=2e-4",)
ROWS = (
    Row("dense", "none", 1, (0, 1, 2)),
    # The two dense epochs that all others begin with, and the same with the rate of pruned ones.
    Row("start", "none", 1, (0, 1, 2)),
    Row("start", "none", 1, (0,), FAST, "_fast"),
    Row("strong", "fisher", 0.1, (0, 1, 2), FAST),
    Row("strong", "magnitude", 0.1, (0, 1, 2), FAST),
    Row("strong", "fisher", 0.2, (0, 1, 2), FAST),
    Row("strong", "structured", 0.5, (0, 1), FAST),
    Row("strong_at_once", "low_rank_late", 0.5, (0, 1), FAST),
    Row("strong", "movement", 0.1, (0, 1, 2), FAST),
    Row("strong", "fisher", 0.5, (0, 1, 2), FAST),
    Row("strong", "magnitude", 0.2, (0, 1, 2), FAST),
    Row("strong", "movement", 0.2, (0, 1, 2), FAST),
    Row("strong", "structured", 0.3, (0, 1), FAST),
    Row("strong_at_once", "low_rank_late", 0.3, (0, 1), FAST),
    Row("strong", "structured_l0", 0.5, (0,), FAST),
    *(Row("strong", pruner, 0.1, (0,), FAST) for pruner in ("soft_movement", "platon", "combined")),
    # The learning rate of the dense epochs, and pruning from the first step.
    Row("strong", "fisher", 0.1, (0,), (), "_slow"),
    *(Row("plain", pruner, 0.1, (0,), FAST) for pruner in ("fisher", "magnitude")),
)


def main() -> None:
    """Train what is missing, and print what there is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mirror")
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--only", nargs="*", help="names of rows, such as strong_fisher_0.1")
    parser.add_argument("--seeds", nargs="*", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--print", action="store_true", help="train nothing")
    options = parser.parse_args()
    if not options.print:
        jobs = [
            (row, seed)
            for seed in sorted({seed for row in ROWS for seed in row.seeds})
            for row in ROWS
            if seed in (options.seeds or row.seeds) and seed in row.seeds
            if row.name in (options.only or [row.name])
        ]
        everything = Everything(options)
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(everything.have, jobs))
    show(known())


class Everything:
    """Trains what is missing, several runs at a time."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.locks: dict[Path, Lock] = {}
        self.writing = Lock()

    def have(self, job: tuple[Row, int]) -> None:
        """Train a row with a seed, unless it is known, and add it to the file."""
        row, seed = job
        if any(one["row"] == row.name and one["seed"] == seed for one in known()):
            return
        if row.recipe not in ("plain", "start"):
            self.trained(start(seed), seed)
        record = self.trained(row, seed)
        with self.writing:
            write([*known(), described(row, record)], self.options)

    def trained(self, row: Row, seed: int) -> RunRecord:
        """Return a run's record; train it if it is not finished."""
        folder = RUNS / row.folder(seed)
        with self.locks.setdefault(folder, Lock()):
            if not has_results(folder):
                mirror = [f"data.mirror={self.options.mirror}"] if self.options.mirror else []
                asked = [*COMMON, *mirror, *row.overrides(seed, self.options.encoder)]
                command = [sys.executable, str(TRAIN), *asked, f"hydra.run.dir={folder}"]
                print(" ".join(command[1:]), flush=True)
                subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
            return RunRecord.read(folder)


def described(row: Row, record: RunRecord) -> dict[str, Any]:
    """Return what the file says of a run."""
    return {
        "row": row.name,
        "recipe": row.recipe,
        "pruner": row.pruner,
        "density": record.budget.density,
        "seed": record.seed,
        "steps": record.steps + (0 if row.recipe in ("plain", "start") else DENSE_STEPS),
        "settings": list(row.settings),
        "precision": best_precision(cpu=True),
        "seconds_per_step": round(record.seconds_per_step, 3),
        "date": datetime.now(UTC).date().isoformat(),
        "score": record.score,
        "validation": {name: dict(scores) for name, scores in record.validation.items()},
    }


def known() -> list[dict[str, Any]]:
    """Return the runs in the file."""
    return list(json.loads(FILE.read_text())["runs"]) if FILE.is_file() else []


def write(runs: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Write all runs that are known."""
    where = f" --mirror {options.mirror} --encoder {options.encoder}" if options.mirror else ""
    content = {
        "command": f"python benchmarks/evidence.py{where}",
        "machine": f"{platform.machine()}, one core a run, no GPU used",
        "unit": "the first metric of each task on validation data, and their mean",
        "runs": sorted(runs, key=lambda one: (one["row"], one["seed"])),
    }
    with atomic_file(FILE) as beside:
        beside.write_text(json.dumps(content, indent=1) + "\n")


def show(runs: list[dict[str, Any]]) -> None:
    """Print each row's mean over seeds, its range, and its share of the dense runs of its seeds."""
    dense = {one["seed"]: one["score"] for one in runs if one["row"] == "dense_none_1"}
    tasks = list(runs[0]["validation"]) if runs else []
    table = Table("row", "seeds", "mean", "range", "of dense", *tasks)
    for name in [row.name for row in ROWS]:
        mine = [one for one in runs if one["row"] == name]
        if not mine:
            continue
        scores = [one["score"] for one in mine]
        pairs = [(one["score"], dense[one["seed"]]) for one in mine if one["seed"] in dense]
        share = f"{sum(a for a, _ in pairs) / sum(b for _, b in pairs):.3f}" if pairs else ""
        firsts = [[next(iter(one["validation"][task].values())) for one in mine] for task in tasks]
        table.add_row(
            *(name, str(len(mine)), f"{100 * mean(scores):.1f}"),
            f"{100 * min(scores):.1f} to {100 * max(scores):.1f}" if len(scores) > 1 else "",
            share,
            *(f"{100 * mean(one):.1f}" for one in firsts),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
