"""Finished runs as one table: a row for each run, split, task, language and metric.

from multiprune.runs.frame import read_frame

frame = read_frame("runs/sparsity")
frame[frame.is_score].pivot_table("value", "density", "pruner")
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from multiprune.runs.budget_outcome import PARTS, parts_of
from multiprune.runs.command import command_of
from multiprune.runs.find import run_folders
from multiprune.runs.folder import RESULTS
from multiprune.runs.record import RunRecord
from multiprune.runs.status import reason_unfinished
from multiprune.targets import TARGET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from multiprune.runs.budget_outcome import BudgetOutcome

#: Data that runs are evaluated on.
SPLITS = ("validation", "test")

#: What the frame says of a run, in each of its rows, before the settings in which runs differ.
RUN_COLUMNS = (
    "run", "pruner", "tasks", "train_language", "seed", "scope", "dense", "asked", "kept",
    "density", "steps", "wall_seconds",
)  # fmt: skip

#: What it says of a score.
SCORE_COLUMNS = ("split", "task", "language", "metric", "is_score", "value", "examples")


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A finished run: its folder, its record, and the command that repeats it, if that is known.

    Attributes:
        dense: parameters of the dense model by part.
        kept: those of the pruned model.
    """

    path: Path
    record: RunRecord
    dense: Mapping[str, int]
    kept: Mapping[str, int]
    command: str | None

    @property
    def tasks(self) -> tuple[str, ...]:
        """In the order of the configuration."""
        return tuple(self.record.tasks)

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.record.seed

    @cached_property
    def metrics(self) -> dict[str, str]:
        """By task, the name of the metric that is its score, the first one."""
        return {name: next(iter(task.metrics), "") for name, task in self.record.tasks.items()}

    @property
    def measures(self) -> dict[str, Mapping[str, Any]]:
        """What that metric is, by task; without tasks of runs that did not note it."""
        found = {name: self.record.tasks[name].metrics[own] for name, own in self.metrics.items()}
        return {name: measure for name, measure in found.items() if measure}

    @property
    def budget(self) -> BudgetOutcome:
        """What was counted, asked for and kept."""
        return self.record.budget

    @property
    def is_dense(self) -> bool:
        """Whether nothing was pruned of what the budget counts."""
        return self.budget.kept == self.budget.dense

    @property
    def encoder(self) -> str:
        """The path of a pretrained encoder, or what builds it; that of the first of a chain."""
        settings = self.record.chain[0].settings
        return str(settings.get("encoder.path", settings.get(f"encoder.{TARGET}", "")))

    @property
    def frozen_embeddings(self) -> bool:
        """Whether the run left the encoder's embeddings as they were, whole and untrained."""
        whole = self.kept["embeddings"] == self.dense["embeddings"]
        return bool(self.record.settings.get("encoder.freeze_embeddings")) and whole

    def kept_in(self, scope: str) -> int:
        """Return the number of kept parameters that a budget of a scope counts."""
        return sum(self.kept[part] for part in parts_of(scope))

    def score(self, task: str, split: str) -> float | None:
        """Return the first metric of a task; None on test data without labels."""
        scores: Mapping[str, float] = getattr(self.record, split).get(task, {})
        return scores.get(self.metrics[task])


@dataclass(frozen=True)
class Skipped:
    """A run, or another thing that is read, that is not used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Runs:
    """The finished runs below some folders by path, and what is skipped."""

    finished: Sequence[FinishedRun]
    skipped: Sequence[Skipped] = field(default_factory=tuple)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The tidy frame, see :func:`read_frame`."""
        return as_frame(self.finished)


def read_frame(*paths: Path | str) -> pd.DataFrame:
    """Return all scores of the finished runs in ``paths`` and below them.

    A row is one value: of a run, a ``split``, a ``task``, a ``language`` (empty for all of them
    together) and a ``metric``. ``is_score`` marks the first metric of each task, over all
    languages. Beside them stand RUN_COLUMNS and, by dotted key, each setting in which runs differ.

    Raises:
        FileNotFoundError: if a path does not exist, or there is no run in it.
    """
    return read_runs(*map(Path, paths)).frame


def read_runs(*paths: Path) -> Runs:
    """Read every run in ``paths`` and below them, each once.

    A run that is not finished, or whose results cannot be read, is skipped with the reason.

    Raises:
        FileNotFoundError: if a path does not exist, or there is no run in it.
    """
    finished: list[FinishedRun] = []
    skipped: list[Skipped] = []
    for folder in run_folders(paths):
        try:
            finished.append(read_run(folder))
        except (ValueError, OSError) as error:
            skipped.append(Skipped(folder, str(error)))
    return Runs(finished, skipped)


def read_run(folder: Path) -> FinishedRun:
    """Read one run.

    Raises:
        ValueError: if it is not finished, or its results are not whole (says what is wrong).
    """
    try:
        record = RunRecord.read(folder)
    except FileNotFoundError:
        reason = reason_unfinished(folder) or f"it has no {RESULTS}"
        raise ValueError(f"unfinished: {reason}") from None
    parts_of(record.budget.scope)
    if not record.tasks:
        raise ValueError(f"the configuration in {RESULTS} has no task")
    ledger = {row.part: row for row in record.ledger}
    if missing := [part for part in PARTS if part not in ledger]:
        raise ValueError(f"the ledger of {RESULTS} has no row {missing[0]!r}")
    run = FinishedRun(
        path=folder,
        record=record,
        dense={part: ledger[part].dense for part in PARTS},
        kept={part: ledger[part].kept for part in PARTS},
        command=command_of(folder),
    )
    _check_scores(run)
    return run


def as_frame(runs: Iterable[FinishedRun]) -> pd.DataFrame:
    """Return the scores of runs as a tidy frame, see :func:`read_frame`."""
    runs = list(runs)
    differing = _differing([run.record.settings for run in runs])
    rows = []
    for run in runs:
        described = _described(run) | {key: run.record.settings.get(key) for key in differing}
        rows += [described | score for score in _scores(run)]
    return pd.DataFrame(rows, columns=[*RUN_COLUMNS, *SCORE_COLUMNS, *differing])


def _described(run: FinishedRun) -> dict[str, Any]:
    budget = run.budget
    values = (
        str(run.path), run.record.method.name, ", ".join(run.tasks), run.record.language or "",
        run.seed, budget.scope, budget.dense, budget.asked, budget.kept, budget.density,
        run.record.steps, run.record.wall_seconds,
    )  # fmt: skip
    return dict(zip(RUN_COLUMNS, values, strict=True))


def _scores(run: FinishedRun) -> Iterator[dict[str, Any]]:
    for split in SPLITS:
        for task, metrics in getattr(run.record, split).items():
            for name, value in metrics.items():
                # A score in one language is called by both, as `accuracy.de`.
                whole, _, end = name.rpartition(".")
                metric, language = (whole, end) if whole in metrics else (name, "")
                values = (
                    split, task, language, metric, run.metrics.get(task) == name, value,
                    run.record.examples.get(task),
                )  # fmt: skip
                yield dict(zip(SCORE_COLUMNS, values, strict=True))


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys at which not all settings are the same; of a task, where runs have it."""
    keys = dict.fromkeys(key for own in settings for key in own if key not in RUN_COLUMNS)
    differing = []
    for key in keys:
        having = [own for own in settings if key in own] if key.startswith("task.") else settings
        if any(own.get(key) != having[0].get(key) for own in having):
            differing.append(key)
    return differing


def _check_scores(run: FinishedRun) -> None:
    for split in SPLITS:
        scores = getattr(run.record, split)
        for task, metric in run.metrics.items():
            if split == "test" and task not in scores:
                continue
            value = scores.get(task, {}).get(metric)
            if value is None:
                raise ValueError(f"{RESULTS} has no `{split}.{task}.{metric}`")
            if not math.isfinite(value):
                raise ValueError(f"the {split} score of {task} is {value}")
