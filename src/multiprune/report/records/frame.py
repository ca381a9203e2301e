"""A folder of runs as one table: a row for each finished run, and a list of all others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multiprune.budget.ledger import PARTS, ParameterLedger, parts_of
from multiprune.runs.command import command_of
from multiprune.runs.find import run_folders
from multiprune.runs.folder import RESULTS
from multiprune.runs.record import RunRecord
from multiprune.runs.status import reason_unfinished
from multiprune.targets import TARGET

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.runs.budget_outcome import BudgetOutcome


@dataclass(frozen=True, kw_only=True)
class Row:
    """One finished run: its folder, its record, and the command that repeats it, if that is known.

    Attributes:
        ledger: of the dense and of the pruned model.
    """

    path: Path
    record: RunRecord
    ledger: ParameterLedger
    command: str | None

    @property
    def tasks(self) -> tuple[str, ...]:
        """In the order of its configuration; a single-task run has one."""
        return tuple(self.record.tasks)

    @property
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
    def encoder(self) -> str:
        """The path of a pretrained encoder, or what builds it; that of the first of a chain."""
        settings = self.record.chain[0].settings
        return str(settings.get("encoder.path", settings.get(f"encoder.{TARGET}", "")))

    def validation_score(self, task: str) -> float:
        """Return the first metric of ``task`` on validation data."""
        return self.record.validation[task][self.metrics[task]]

    def test_score(self, task: str) -> float | None:
        """Return the first metric of ``task`` on test data; None if those have no labels."""
        return self.record.test.get(task, {}).get(self.metrics[task])

    @property
    def frozen_embeddings(self) -> bool:
        """Whether the run left the encoder's embeddings as they were, whole and untrained."""
        kept, dense = self.ledger.kept["embeddings"], self.ledger.dense["embeddings"]
        return bool(self.record.settings.get("encoder.freeze_embeddings")) and kept == dense


#: Reads the score of a task off a run: ``Row.validation_score`` or ``Row.test_score``.
Score = Callable[[Row, str], float | None]

SPLITS: Mapping[str, Score] = {"validation": Row.validation_score, "test": Row.test_score}


@dataclass(frozen=True)
class LeftOut:
    """A run that is not used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Frame:
    """The finished runs below some folders by path, and what is left out."""

    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]


def read_runs(*paths: Path) -> Frame:
    """Read every run in ``paths`` and below them, each once.

    A run that is not finished, or whose results cannot be read, is left out with the reason.

    Raises:
        FileNotFoundError: if a path does not exist, or there is no run in it.
    """
    rows: list[Row] = []
    left_out: list[LeftOut] = []
    for folder in run_folders(paths):
        try:
            rows.append(read_run(folder))
        except (ValueError, OSError) as error:
            left_out.append(LeftOut(folder, str(error)))
    return Frame(tuple(rows), tuple(left_out))


def read_run(folder: Path) -> Row:
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
    row = Row(path=folder, record=record, ledger=_ledger(record), command=command_of(folder))
    _check_scores(row)
    return row


def _ledger(record: RunRecord) -> ParameterLedger:
    parts = {row.part: row for row in record.ledger}
    if missing := [part for part in PARTS if part not in parts]:
        raise ValueError(f"the ledger of {RESULTS} has no row {missing[0]!r}")
    return ParameterLedger(
        {part: parts[part].dense for part in PARTS}, {part: parts[part].kept for part in PARTS}
    )


def _check_scores(row: Row) -> None:
    for split, scores in (("validation", row.record.validation), ("test", row.record.test)):
        for task, metric in row.metrics.items():
            if split == "test" and task not in scores:
                continue
            value = scores.get(task, {}).get(metric)
            if value is None:
                raise ValueError(f"{RESULTS} has no `{split}.{task}.{metric}`")
            if not math.isfinite(value):
                raise ValueError(f"the {split} score of {task} is {value}")
