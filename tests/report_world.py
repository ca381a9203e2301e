"""A folder of runs with two tasks, three sizes and three seeds, whose right answers are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from run_folders import results, write

from multiprune.runs.masks import write_masks

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

SIZES = (100_000, 200_000, 400_000)
#: Validation scores of seed 0 by size; those of test data are 0.1 below.
ALONE = {"easy": (0.90, 0.91, 0.92), "hard": (0.50, 0.60, 0.80)}
TOGETHER = {"easy": (0.70, 0.80, 0.85), "hard": (0.55, 0.70, 0.75)}
#: What a seed adds, alone and together.
OF_SEED = ((0.00, 0.00), (0.02, 0.03), (0.04, 0.09))

LAYERS = tuple(
    f"model.encoder.encoder.layer.{layer}.{matrix}.weight"
    for layer in (0, 1)
    for matrix in ("attention.self.query", "output.dense")
)


def write_runs(folder: Path) -> Path:
    """Write 27 finished runs, one that was stopped and one that is damaged."""
    for index, size in enumerate(SIZES):
        for seed, (alone, together) in enumerate(OF_SEED):
            for task, scores in ALONE.items():
                _write(folder, {task: scores[index] + alone}, size, seed)
            both = {task: scores[index] + together for task, scores in TOGETHER.items()}
            _write(folder, both, size, seed)
    (folder / "stopped" / ".hydra").mkdir(parents=True)
    (folder / "damaged").mkdir()
    (folder / "damaged" / "results.json").write_text("{")
    return folder


def _write(folder: Path, scores: dict[str, float], size: int, seed: int) -> None:
    test = {task: score - 0.1 for task, score in scores.items()}
    content = results(scores, kept=size, seed=seed, test=test, examples={"easy": 300, "hard": 100})
    content["density"] = {path: size / 1e6 * (1 + index) / 2.5 for index, path in enumerate(LAYERS)}
    name = "-".join([*scores, str(size), str(seed)])
    write(folder / name, content, f"task=[{','.join(scores)}]", f"seed={seed}")


def write_kept(run: Path, kept: dict[str, np.ndarray]) -> None:
    """Write what a run has kept."""
    write_masks(run, {path: torch.from_numpy(mask) for path, mask in kept.items()})
