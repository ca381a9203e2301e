"""What a dashboard shows of one finished run: its numbers, and where parameters were kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.layers import grid, mean_density
from multiprune.report.page.drawing import image
from multiprune.report.page.plots import heat_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image

    from multiprune.runs.record import RunRecord


def summary(record: RunRecord) -> dict[str, float]:
    """Return what runs are compared by, under the names that metrics have.

    ``score``, the parameters ``kept`` and their share ``density`` of what the budget counts, and
    all metrics by task.
    """
    by_split = {"val": record.validation, "test": record.test}
    return {
        "score": record.score,
        "kept": record.budget.kept,
        "density": record.budget.density,
    } | {
        f"{split}/{task}/{metric}": value
        for split, by_task in by_split.items()
        for task, metrics in by_task.items()
        for metric, value in metrics.items()
    }


def density_map(density: Mapping[str, float]) -> Image:
    """Draw kept / total of pruned tensors, by path, as a heat map of layers and matrices."""
    layers, matrices, cells = grid(mean_density([density]))
    return image(lambda: heat_map(layers, matrices, cells, digits=3))
