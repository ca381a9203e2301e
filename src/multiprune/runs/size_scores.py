"""``frontier.json``: scores of a dynamic model by size, from ``multiprune frontier``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from multiprune.runs.frame import SPLITS
from multiprune.runs.json_value import value_at
from multiprune.runs.schema import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from multiprune.runs.frame import FinishedRun

FRONTIER = "frontier.json"
#: Digests of a run's model of all sizes.
WEIGHTS = "sizes/sha256.json"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class OneSize:
    """One size of one run.

    Attributes:
        asked: the density that was asked for, the same for all seeds; of the smallest size that of
            the run's budget, as seeds differ in what it comes to.
        kept: the parameters, of those that the run's budget counts.
        scores: the first metric of each task.
    """

    asked: float
    kept: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class SizeScores:
    """The sizes of one run, on validation or test data; all have scores of the same tasks."""

    run: FinishedRun
    split: str
    sizes: tuple[OneSize, ...]


def read_size_scores(run: FinishedRun) -> SizeScores | None:
    """Read what the sizes of a run score; None if they were not evaluated.

    Raises:
        ValueError: if the file is damaged, or of weights that the run no longer has.
        OSError: if it cannot be read.
    """
    try:
        content = read_json(run.path / FRONTIER)
    except FileNotFoundError:
        return None
    split = _at(content, "split", str)
    if split not in SPLITS:
        raise ValueError(f"`split` of {FRONTIER} must be one of {', '.join(SPLITS)}, not {split!r}")
    _check_weights(run, _at(content, "weights", dict))
    sizes = tuple(_size(run, size) for size in _at(content, "sizes", list))
    if not sizes or any(one.scores.keys() != sizes[0].scores.keys() for one in sizes):
        raise ValueError(f"{FRONTIER} must have sizes, all with scores of the same tasks")
    return SizeScores(run, split, sizes)


def _at(content: Any, dotted: str, kind: type[T]) -> T:
    return value_at(content, dotted, kind, name=FRONTIER)


def _check_weights(run: FinishedRun, evaluated: Mapping[str, str]) -> None:
    """Check that the run was not trained again since; runs without weights are not checked."""
    file = run.path / WEIGHTS
    if file.is_file() and read_json(file) != evaluated:
        raise ValueError(
            f"{FRONTIER} must be of the run's own weights, but is of others; multiprune frontier "
            f"{run.path} writes it anew"
        )


def _size(run: FinishedRun, size: Any) -> OneSize:
    kept, asked = _at(size, "kept", int), _at(size, "asked", float)
    if not 0 < kept <= run.budget.dense:
        raise ValueError(
            f"`kept` of {FRONTIER} must be from 1 to {run.budget.dense:,}, but is {kept:,}"
        )
    scores = {
        task: _at(size, f"scores.{task}.{metric}", float)
        for task, metric in run.metrics.items()
        if task in _at(size, "scores", dict)
    }
    if not scores or not all(map(math.isfinite, scores.values())):
        raise ValueError(f"each size of {FRONTIER} must have finite scores, but one has {scores}")
    return OneSize(
        asked=run.budget.asked / run.budget.dense if kept <= run.budget.kept else asked,
        kept=kept,
        scores=scores,
    )
