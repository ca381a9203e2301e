"""Writes what jobs of ``train.py -cn specialize`` leave, with scores of one's choice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

DENSE = 1_000_000
SIZES = (250_000, 500_000, 750_000)
WHOLE = {"easy": 0.9, "hard": 0.7}


def content(
    score: Callable[[str, int], float],
    *,
    method: str = "attribution",
    examples: int = 100,
    labels: str = "gold",
    seed: int = 0,
    **changed: Any,
) -> dict[str, Any]:
    """Return what a job writes; a specialist keeps 1,000 parameters less than asked."""
    return {
        "run": "/runs/multitask",
        "method": method,
        "options": {"seed": seed},
        "labels": labels,
        "examples": examples,
        "seed": seed,
        "repair": "none",
        "of": "encoder_linear",
        "dense": DENSE,
        # The first metric is the score.
        "whole": {task: {"f1": one, "accuracy": 0.0} for task, one in WHOLE.items()},
        "specialists": [
            {"task": task, "asked": size, "kept": size - 1_000}
            | {"metrics": {"f1": score(task, size), "accuracy": 0.0}}
            for task in WHOLE
            for size in SIZES
        ],
        "unseen": [],
        "overlap": {},
        "seconds": 36.0,
    } | changed


def flat(easy: float, hard: float) -> Callable[[str, int], float]:
    """The same scores at 500,000, a tenth less at 250,000 and more at 750,000."""
    scores = {"easy": easy, "hard": hard}
    return lambda task, size: scores[task] + (size - 500_000) / 2_500_000


def elsewhere(score: float, *, whole: float = 0.6, size: int = 500_000) -> dict[str, Any]:
    """Return what is known of a specialist for the easy task on other data."""
    known = {"task": "easy", "data": "other", "asked": size, "kept": size - 1_000}
    return known | {"metrics": {"f1": score, "accuracy": 0.0}, "whole": {"f1": whole}}


def overlap(neurons: float, heads: float) -> dict[str, Any]:
    """Return what two tasks share."""
    kinds = {"neurons": neurons, "heads": heads}
    return {"tasks": list(WHOLE)} | {k: [[1.0, one], [one, 1.0]] for k, one in kinds.items()}


def write(folder: Path, found: Mapping[str, Any]) -> Path:
    """Write the file of a job into its folder."""
    folder.mkdir(parents=True)
    (folder / "specialists.json").write_text(json.dumps(found))
    return folder
