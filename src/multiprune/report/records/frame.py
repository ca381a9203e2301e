"""A folder of runs as one table: a row for each finished run, and a list of all others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from multiprune.budget.ledger import PARTS, ParameterLedger, parts_of
from multiprune.report.records.chain import Link, read_chain
from multiprune.report.records.command import command_of
from multiprune.report.records.json_value import value_at
from multiprune.report.records.record import ResultsRecord
from multiprune.report.records.runs import RESULTS, run_folders
from multiprune.schema import check_schema, read_json
from multiprune.status import reason_unfinished

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.report.records.results import Scores

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One finished run.

    Attributes:
        path: the run's folder.
        tasks: in the order of its configuration; a single-task run has one.
        pruner: the class of the pruner.
        encoder: the path of a pretrained encoder, or what builds it; that of the first run of a
            chain.
        of: what the run's budget counts: so many ``dense``, ``asked`` and ``kept`` parameters.
        ledger: of the dense and of the pruned model.
        metrics: by task, the name of the metric that is its score, the first one.
        measures: by task, what that metric is; without tasks of runs that did not note it.
        validation: all metrics by task.
        test: all metrics by task, for tasks whose test data have labels.
        examples: training examples by task, after caps; empty for runs that did not note them.
        density: kept / total by path of each pruned tensor.
        command: what repeats the run; None where Hydra has left no trace of it.
        config: the composed configuration.
        chain: the runs that the encoder has gone through, of which this one is the last.
    """

    path: Path
    tasks: tuple[str, ...]
    pruner: str
    encoder: str
    seed: int
    of: str
    dense: int
    asked: int
    kept: int
    ledger: ParameterLedger
    metrics: Mapping[str, str]
    measures: Mapping[str, Mapping[str, Any]]
    validation: Scores
    test: Scores
    examples: Mapping[str, int]
    density: Mapping[str, float]
    steps: int
    wall_seconds: float
    command: str | None
    config: Mapping[str, Any]
    chain: tuple[Link, ...]

    def validation_score(self, task: str) -> float:
        """Return the first metric of ``task`` on validation data."""
        return self.validation[task][self.metrics[task]]

    def test_score(self, task: str) -> float | None:
        """Return the first metric of ``task`` on test data; None if those have no labels."""
        return self.test.get(task, {}).get(self.metrics[task])

    @property
    def language(self) -> str | None:
        """The language whose rows alone the run has read; None for those its tasks ask for."""
        language: str | None = self.config.get("data", {}).get("language")
        return language

    @property
    def frozen_embeddings(self) -> bool:
        """Whether the run left the encoder's embeddings as they were, whole and untrained."""
        kept, dense = self.ledger.kept["embeddings"], self.ledger.dense["embeddings"]
        return bool(self.config["encoder"].get("freeze_embeddings")) and kept == dense


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
        content = read_json(folder / RESULTS)
    except FileNotFoundError:
        reason = reason_unfinished(folder) or f"it has no {RESULTS}"
        raise ValueError(f"unfinished: {reason}") from None
    check_schema(ResultsRecord, content, name=RESULTS)
    config = _at(content, "config", dict)
    ledger = _ledger(content)
    metrics = _first_metrics(config)
    chain = read_chain(content)
    encoder = value_at(chain[0].config, "encoder", dict, name="the configuration")
    return Row(
        path=folder,
        tasks=tuple(metrics),
        pruner=_at(content, "config.pruner._target_", str).rpartition(".")[2],
        encoder=str(encoder.get("path", encoder.get("_target_", ""))),
        seed=_at(content, "seed", int),
        of=_denominator(content),
        dense=_at(content, "budget.dense", int),
        asked=_at(content, "budget.asked", int),
        kept=_at(content, "budget.kept", int),
        ledger=ledger,
        metrics=metrics,
        measures=_measures(content, metrics),
        validation=_scores(content, "validation", metrics, required=True),
        test=_scores(content, "test", metrics, required=False),
        examples=_at(content, "examples", dict) if "examples" in content else {},
        density=_at(content, "density", dict),
        steps=_at(content, "steps", int),
        wall_seconds=_at(content, "wall_seconds", float),
        command=command_of(folder),
        config=config,
        chain=chain,
    )


def _at(content: Any, dotted: str, kind: type[T]) -> T:
    return value_at(content, dotted, kind, name=RESULTS)


def _denominator(content: Any) -> str:
    of = _at(content, "budget.of", str)
    parts_of(of)
    return of


def _ledger(content: Any) -> ParameterLedger:
    rows = _at(content, "ledger", list)
    parts = {_at(row, "part", str): row for row in rows}
    if missing := [part for part in PARTS if part not in parts]:
        raise ValueError(f"the ledger of {RESULTS} has no row {missing[0]!r}")
    dense, kept = (
        {part: _at(parts[part], column, int) for part in PARTS} for column in ("dense", "kept")
    )
    return ParameterLedger(dense, kept)


def _first_metrics(config: Mapping[str, Any]) -> dict[str, str]:
    tasks = _at(config, "task", dict)
    if not tasks:
        raise ValueError(f"the configuration in {RESULTS} has no task")
    return {name: next(iter(_at(task, "metrics", dict)), "") for name, task in tasks.items()}


def _measures(content: Any, metrics: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
    noted = _at(content, "metrics", dict) if "metrics" in content else {}
    return {
        task: noted[task][name] for task, name in metrics.items() if name in noted.get(task, {})
    }


def _scores(content: Any, split: str, metrics: Mapping[str, str], *, required: bool) -> Scores:
    scores = _at(content, split, dict)
    for task, metric in metrics.items():
        if required or task in scores:
            value = _at(content, f"{split}.{task}.{metric}", float)
            if not math.isfinite(value):
                raise ValueError(f"the {split} score of {task} is {value}")
    return scores
