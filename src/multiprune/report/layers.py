"""Where in an encoder parameters are kept: by layer and type of matrix."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A layer, such as ``3``, and a matrix within it, such as ``attention.self.query``.
Position = tuple[str, str]

#: The path from a run's module to its encoder.
ENCODER = "model.encoder."


def position_of(path: str) -> Position:
    """Return where the pruned tensor with a dotted path stands.

    The layer is all numbers of the path, of which ALBERT has two, and empty where there is none.
    The layers of a decoder say that they are.
    """
    names = path.removeprefix(ENCODER).split(".")
    numbers = [index for index, name in enumerate(names) if name.isdigit()]
    layer = ".".join(names[index] for index in numbers)
    layer = f"{names[0]} {layer}" if names[0] == "decoder" else layer
    return layer, ".".join(names[numbers[-1] + 1 if numbers else 0 :]).removesuffix(".weight")


def mean_density(runs: Sequence[Mapping[str, float]]) -> dict[Position, float]:
    """Average densities by path over runs, position by position, in the order of the first run."""
    by_position: dict[Position, list[float]] = {}
    for run in runs:
        for path, density in run.items():
            by_position.setdefault(position_of(path), []).append(density)
    return {position: statistics.fmean(values) for position, values in by_position.items()}


def grid(values: Mapping[Position, float]) -> tuple[list[str], list[str], list[list[float | None]]]:
    """Lay values out as rows of layers and columns of matrices; None where there is no such one."""
    layers = list(dict.fromkeys(layer for layer, _ in values))
    matrices = list(dict.fromkeys(matrix for _, matrix in values))
    cells = [[values.get((layer, matrix)) for matrix in matrices] for layer in layers]
    return layers, matrices, cells
