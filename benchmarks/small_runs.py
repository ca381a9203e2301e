"""What benchmarks of whole runs share: small runs of every pruner, and where their figures go."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multiprune.runs.atomic import atomic_file

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
TRAIN = ROOT / "train.py"
RESULTS = Path(__file__).parent / "results"

#: One process on one core, the embedded tasks.
QUIET = ("trainer=cpu", "trainer.enable_progress_bar=false")

#: The pruner that takes the masks of another run, and the one whose masks it takes here.
FIXED, MASKS_FROM = "fixed", "magnitude"

#: The pruner that takes no other budget than a full one.
DENSE = "none"


def pruners() -> list[str]:
    """Return the names in ``conf/pruner``; the one that needs the run of another is the last."""
    names = sorted(file.stem for file in (ROOT / "conf" / "pruner").glob("*.yaml"))
    return sorted(names, key=lambda name: name == FIXED)


def pruned_by(name: str, masks_from: Path, *, fraction: float = 0.2) -> list[str]:
    """Return the settings of a pruner; ``masks_from`` is a finished run, for the one that asks."""
    budget = "budget=full" if name == DENSE else f"budget.fraction={fraction}"
    return [f"pruner={name}", budget] + [f"pruner.mask.run={masks_from}"] * (name == FIXED)


def rows(**splits: int) -> list[str]:
    """Return the settings by which each embedded task has so many rows."""
    counts = ", ".join(f"{split}: {count}" for split, count in splits.items())
    tasks = ("agreement", "entailment", "quantity", "roles")
    return [f"task.{task}.source.rows={{{counts}}}" for task in tasks]


def machine() -> str:
    """Return the kind of machine, as ``AMD EPYC, 2 cores``."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{models[0].strip() if models else 'unknown'}, {os.cpu_count()} cores"


def write_results(file: Path, content: Mapping[str, Any]) -> None:
    """Write figures as JSON, with the kind of machine and the date."""
    file.parent.mkdir(parents=True, exist_ok=True)
    date = datetime.now(UTC).date().isoformat()
    with atomic_file(file) as beside:
        dated = {"machine": machine(), "date": date, **content}
        beside.write_text(json.dumps(dated, indent=1) + "\n")
