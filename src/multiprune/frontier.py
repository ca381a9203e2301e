"""Evaluate a dynamic model at several densities, in one pass over the data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table

from multiprune.export.loading import load_sizes
from multiprune.measure.answered import answered
from multiprune.measure.cost import parameters, without_embeddings
from multiprune.models.encoder import Encoder
from multiprune.runs.atomic import atomic_file
from multiprune.runs.size_scores import FRONTIER, WEIGHTS
from multiprune.specialize.origin import read_origin
from multiprune.tasks.scores import scores_of
from multiprune.training.module import mean_score

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from multiprune.data.batches import EncodedTask
    from multiprune.export.dynamic import DynamicModel


_WIDTH = 200


@dataclass(frozen=True, kw_only=True)
class Size:
    """One size of a model, and what it scores.

    Attributes:
        asked: the density that was asked for, above which ``density`` is not.
        density: kept / total of what the run's budget counts.
        kept: the parameters that are counted.
        parameters: of the whole encoder at this size.
        without_embeddings: the same but for the embeddings, of words or positions.
        score: the mean of the tasks' scores, as runs have it.
        scores: all metrics by task.
    """

    asked: float
    density: float
    kept: int
    parameters: int
    without_embeddings: int
    score: float
    scores: dict[str, dict[str, float]]


@torch.no_grad()
def frontier(
    run: Path,
    densities: Sequence[float] | None,
    *,
    split: str,
    mirror: str | None = None,
    allow_targets: Sequence[str] = (),
) -> list[Size]:
    """Evaluate the sizes of a run's model, the largest first.

    Args:
        run: a finished run with ``pruner=dynamic_sparsification``.
        densities: of the sizes; every tenth, and the smallest, by default.
        split: ``validation`` or ``test``.
        mirror: local mirror of data to read instead of the run's.
        allow_targets: further packages of classes and functions that the run may name.

    Raises:
        FileNotFoundError: if the run has no model of many sizes.
        ValueError: if a density is outside of the range that was trained, or data do not fit.
    """
    model = load_sizes(run)
    ladder = ladder_of(model, densities)
    origin = read_origin(run, allow_targets=allow_targets)
    encoder = Encoder(model.encoder, model.tokenizer)
    scores: list[dict[str, dict[str, float]]] = [{} for _ in ladder]
    firsts = {}
    for name in model.meaning:
        encoded = origin.encoded(name, encoder, mirror)
        if split not in encoded.splits:
            continue
        firsts[name] = encoded.task.score_name
        for place, found in enumerate(_scores(model, encoded, split, ladder)):
            scores[place][name] = found
    if not firsts:
        raise ValueError(f"No task of {run} has a {split} split.")
    return [
        _size(model, density, by_task, mean_score([by_task[one][firsts[one]] for one in firsts]))
        for density, by_task in zip(ladder, scores, strict=True)
    ]


def ladder_of(model: DynamicModel, densities: Sequence[float] | None) -> list[float]:
    """Return the densities that are asked for, the largest first, each of which must be possible.

    Raises:
        ValueError: if one is not.
    """
    smallest = model.smallest_density
    if densities is None:
        densities = [*(tenth / 10 for tenth in range(1, 11) if tenth / 10 > smallest), smallest]
    for density in densities:
        model.set_density(density)
    return sorted(set(densities), reverse=True)


def _scores(
    model: DynamicModel, encoded: EncodedTask, split: str, ladder: Sequence[float]
) -> list[dict[str, float]]:
    """Return the metrics of a task at each density."""
    found = []
    for density in ladder:
        model.set_density(density)
        answers = answered(model, encoded, split)
        found.append(scores_of(encoded.task, answers, encoded.evaluated.get(split)))
    return found


def _size(
    model: DynamicModel, density: float, scores: dict[str, dict[str, float]], score: float
) -> Size:
    reached = model.set_density(density)
    return Size(
        asked=density,
        density=reached,
        kept=model.size,
        parameters=parameters(model.encoder),
        without_embeddings=without_embeddings(model.encoder),
        score=score,
        scores=scores,
    )


def print_sizes(sizes: Sequence[Size]) -> None:
    """Print one row a size, with the first metric of each task."""
    table = Table()
    tasks = list(sizes[0].scores)
    for head in ("density", "kept", "parameters", "without embeddings", *tasks, "mean"):
        table.add_column(head, justify="right")
    for one in sizes:
        table.add_row(
            f"{one.density:.4f}",
            *(f"{count:,}" for count in (one.kept, one.parameters, one.without_embeddings)),
            *(f"{next(iter(one.scores[task].values())):.4f}" for task in tasks),
            f"{one.score:.4f}",
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH  # a file has room for every task
    console.print(table)


def write_sizes(sizes: Sequence[Size], file: Path) -> None:
    """Write sizes as JSON."""
    _write([asdict(one) for one in sizes], file)


def write_frontier(sizes: Sequence[Size], run: Path, *, split: str) -> None:
    """Write sizes into the folder of their run, for a report, in place of what was there.

    Raises:
        OSError: if it cannot be written.
    """
    content = {
        "split": split,
        # Tells a report whether the run was trained again since.
        "weights": json.loads((run / WEIGHTS).read_text()),
        "sizes": [asdict(one) for one in sizes],
    }
    _write(content, run / FRONTIER)


def _write(content: object, file: Path) -> None:
    with atomic_file(file) as beside:
        beside.write_text(json.dumps(content, indent=2) + "\n")
