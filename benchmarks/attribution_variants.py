"""What specialists keep of a finished run, by the way that units are ranked: a table of variants.

    python train.py experiment=glue_core_minilm 'task=[mrpc,sst2,stsb]' trainer=cpu pruner=none \
        budget=full trainer.max_steps=800 hydra.run.dir=runs/three
    python benchmarks/attribution_variants.py runs/three
    python benchmarks/attribution_variants.py runs/three --only attribution_absolute --seeds 0
    python benchmarks/attribution_variants.py --print

Measures what ``benchmarks/results/attribution_variants.json`` does not have yet, and adds each
variant and draw of examples once it is finished; who was stopped goes on. The same validation rows
of mrpc and sst2 are answered by all; stsb has no classes to be pseudo-labels, and is left out.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table
from small_runs import RESULTS

from multiprune.budget.budget import FractionBudget
from multiprune.measure.benchmark import machine
from multiprune.quiet import quiet_libraries
from multiprune.runs.atomic import atomic_file
from multiprune.specialize.application import composed
from multiprune.specialize.recipe import Recipe
from multiprune.specialize.request import Request
from multiprune.specialize.study import study

FILE = RESULTS / "attribution_variants.json"
DENSITIES = (0.7, 0.5, 0.3)
TASKS = ("mrpc", "sst2")
#: Settings of ``multiprune specialize``, by name; 100 gold examples where nothing is said.
VARIANTS = {
    "fisher": ("method=fisher",),
    "fisher_pseudo": ("method=fisher", "labels=pseudo"),
    "attribution": ("method=attribution",),
    "attribution_pseudo": ("method=attribution", "labels=pseudo"),
    "attribution_absolute": ("method=attribution", "absolute=true"),
    "attribution_sum": ("method=attribution", "tokens=sum"),
    "attribution_absolute_sum": ("method=attribution", "absolute=true", "tokens=sum"),
    "integrated_16_examples": ("method=integrated-gradients", "steps=4", "examples=16"),
    "random": ("method=random",),
    "magnitude": ("method=magnitude",),
    "taylor": ("method=taylor",),
    "activation_norm": ("method=activation-norm",),
    "fisher_16_examples": ("method=fisher", "examples=16"),
}


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=200, help="validation rows of each task")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="draws of examples")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--print", action="store_true", help="print what was measured")
    options = parser.parse_args()
    found = json.loads(FILE.read_text()) if FILE.exists() else {"rows": []}
    if not options.print:
        if options.run is None:
            parser.error("a finished run is needed to measure")
        quiet_libraries()
        known = {(row["variant"], row["seed"]) for row in found["rows"]}
        # Seeds outside, so that what stops early has compared something.
        for seed in options.seeds:
            for variant in [one for one in options.only if (one, seed) not in known]:
                found["rows"].append(measured(options.run, variant, seed, options.rows))
                write(found)
    show(found["rows"])


def measured(run: Path, variant: str, seed: int, rows: int) -> dict[str, Any]:
    """Cut a run in one way to every density, for each task, and return the scores."""
    settings = composed("run", [*VARIANTS[variant], f"seed={seed}", "budget.fraction=1"])
    names = [one.name for one in fields(Recipe) if one.name != "budget"]
    budget = FractionBudget(fraction=1.0, of="encoder_linear")
    recipe = Recipe(budget=budget, **{name: settings[name] for name in names})
    request = Request(run=run, tasks=TASKS)
    made = study(request, recipe, densities=DENSITIES, validation_rows=rows)
    # Of each task at each density, in this order.
    of_task = [(one["task"], first(one["metrics"])) for one in made["specialists"]]
    scores: dict[str, dict[str, float]] = {}
    for number, (task, score) in enumerate(of_task):
        scores.setdefault(str(DENSITIES[number % len(DENSITIES)]), {})[task] = score
    whole = {task: first(metrics) for task, metrics in made["whole"].items()}
    about = {"variant": variant, "settings": VARIANTS[variant], "seed": seed}
    outcome = {"validation_rows": rows, "whole": whole, "scores": scores}
    return {**about, **outcome, "seconds": round(made["seconds"])}


def first(metrics: dict[str, float]) -> float:
    """Return the first metric, accuracy."""
    return next(iter(metrics.values()))


def write(found: dict[str, Any]) -> None:
    """Replace the results by what is known now."""
    found["machine"] = machine() | {"shared": True}
    found["date"] = datetime.now(UTC).date().isoformat()
    found["command"] = shlex.join(["python", "benchmarks/attribution_variants.py", *sys.argv[1:]])
    with atomic_file(FILE) as beside:
        beside.write_text(json.dumps(found, indent=1) + "\n")


def show(rows: list[dict[str, Any]]) -> None:
    """Print mean scores over tasks and draws, and how far the draws are apart."""
    table = Table("variant", "draws", *map(str, DENSITIES))
    for variant in [one for one in VARIANTS if any(row["variant"] == one for row in rows)]:
        draws = [row["scores"] for row in rows if row["variant"] == variant]
        cells = []
        for density in map(str, DENSITIES):
            means = [mean(scores[density].values()) for scores in draws]
            cells.append(f"{mean(means):.3f} ({max(means) - min(means):.3f})")
        table.add_row(variant, str(len(draws)), *cells)
    Console().print(table)
    for row in rows[:1]:
        Console().print(f"whole: {row['whole']}")


if __name__ == "__main__":
    main()
