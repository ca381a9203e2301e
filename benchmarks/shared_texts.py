"""Two labels of the same texts: trained in batches of their own, and in shared ones.

    python benchmarks/shared_texts.py --mirror ../shared/data    # writes results/shared_texts.json

Pairs of sentences of SICK have a class (entailment, neutral, contradiction) and a number (how
related they are, 1 to 5). Both are learned by the embedded encoder, dense. Shared batches have half
as many steps an epoch, so they are measured for as many epochs, and for as many steps.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from small_runs import QUIET, RESULTS, TRAIN

TASKS = (
    "task=sick",
    "task.relatedness={_target_: multiprune.tasks.classification.Regression, "
    "text: [sentence1, sentence2], label: relatedness_score, minimum: 1, maximum: 5, "
    "metrics: {pearson: {_target_: multiprune.metrics.Pearson}}, "
    "source: {_target_: multiprune.data.source.HubSource, path: null, name: null, "
    "mirror: english/sick}}",
)
COMMON = (*QUIET, *TASKS, "pruner=none", "budget=full", "optimizer.learning_rate=5e-4")
SETTINGS = {
    "apart": ("trainer.max_epochs=3",),
    "shared": ("trainer.max_epochs=3", "data.share_texts=true"),
    "shared, as many steps": ("trainer.max_epochs=6", "data.share_texts=true"),
}


def main() -> None:
    """Run everything, print a table and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mirror", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS / "shared_texts.json")
    options = parser.parse_args()
    runs = []
    # Seeds outside, so that what stops early has compared something.
    for seed in options.seeds:
        for name in SETTINGS:
            runs.append({"setting": name, "seed": seed, **outcome(name, seed, options.mirror)})
            result = {
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU used, busy",
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "command": shlex.join(["python", "benchmarks/shared_texts.py", *sys.argv[1:]]),
                "unit": "accuracy and Pearson's correlation on validation and test data",
                "means": means(runs),
                "runs": runs,
            }
            options.results.write_text(json.dumps(result, indent=1) + "\n")
    show(means(runs))


def outcome(name: str, seed: int, mirror: Path) -> dict[str, Any]:
    """Train and evaluate one run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = [*COMMON, *SETTINGS[name], f"seed={seed}", f"data.mirror={mirror.resolve()}"]
        command = [sys.executable, str(TRAIN), *settings, f"hydra.run.dir={folder}/run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        results = json.loads(Path(folder, "run", "results.json").read_text())
    scores = {
        f"{split} {task}": results[split][task][metric]
        for split in ("validation", "test")
        for task, metric in (("sick", "accuracy"), ("relatedness", "pearson"))
    }
    return {**scores, "steps": results["steps"], "seconds": round(results["wall_seconds"])}


def means(runs: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Return mean and standard deviation over seeds, by setting."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in SETTINGS:
        of_setting = [run for run in runs if run["setting"] == name]
        for key in (of_setting or [{}])[0].keys() - {"setting", "seed"}:
            values = [run[key] for run in of_setting]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            found.setdefault(name, {})[key] = [statistics.fmean(values), deviation]
    return found


def show(found: dict[str, dict[str, list[float]]]) -> None:
    """Print means and standard deviations."""
    keys = sorted({key for one in found.values() for key in one})
    table = Table("setting", *keys)
    for name, one in found.items():
        table.add_row(name, *(f"{one[key][0]:.4g} ± {one[key][1]:.2g}" for key in keys))
    Console().print(table)


if __name__ == "__main__":
    main()
