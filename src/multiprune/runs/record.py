"""``results.json``: the record of a finished run, written once and read by everything else."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval

from multiprune.runs.atomic import atomic_file

# Looked up by name when a record is checked.
from multiprune.runs.budget_outcome import BudgetOutcome, Count, LedgerRow  # noqa: TC001
from multiprune.runs.folder import RESULTS, has_results
from multiprune.runs.json_value import value_at
from multiprune.runs.older_record import upgraded
from multiprune.runs.schema import checked, read_json
from multiprune.runs.settings import PRUNER, difference, method_settings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: Of what this package writes. A record of another number is brought to this one when it is read.
SCHEMA = 4

Scores = Mapping[str, Mapping[str, float]]
Seconds = Annotated[float, Interval(ge=0, lt=1e12)]
Share = Annotated[float, Interval(ge=0, le=1)]

#: What differs between two runs of one command on one machine, and nothing else does.
TIMES = ("wall_seconds", "seconds_per_step")

_PACKAGES = (
    "multiprune",
    "torch",
    "transformers",
    "datasets",
    "pytorch-lightning",
    "hydra-core",
    "torchmetrics",
)


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a model was pruned: the pruner's name, and all settings but those of data and size."""

    name: str
    settings: Mapping[str, Any]

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Method:
        """Pick what makes the method out of all settings of a run."""
        return cls(name=str(settings.get(PRUNER, "")), settings=method_settings(settings))


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """What a task was.

    Attributes:
        kind: what it answers with, as ``classes`` or ``tags``.
        metrics: by name, what each is, its name in this package and its settings; empty for records
            that did not note it. The first is the task's score.
        loss_weight: what its loss was multiplied with.
        languages: of its rows; empty for a task without that column.
        train_languages: those it was trained on; None is all.
        has_labels: whether it was learned from labels, rather than from texts alone.
    """

    kind: str
    metrics: Mapping[str, Mapping[str, Any]]
    loss_weight: float = 1.0
    languages: list[str] = field(default_factory=list)
    train_languages: list[str] | None = None
    has_labels: bool = True


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is known of a run from the runs after it, which began with its encoder.

    Attributes:
        score: mean over the tasks of the first metric of each, on validation data.
        validation: metrics by task.
        ledger: one row a part of the model.
        mask_sha256: of all masks, for comparing runs.
        steps: optimizer steps.
        method: how it was pruned.
        tasks: by name, in the order of the configuration.
        settings: all of them by dotted key, defaults filled in, classes by their names.
        config: the composed configuration.
    """

    score: float
    validation: Scores
    budget: BudgetOutcome
    ledger: list[LedgerRow]
    mask_sha256: str
    steps: Count
    seed: Count
    method: Method
    tasks: Mapping[str, TaskRecord]
    settings: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def pretrains(self) -> bool:
        """Whether all that it has learned from are texts without labels."""
        return not any(task.has_labels for task in self.tasks.values())


@dataclass(frozen=True, kw_only=True)
class EarlierRun(Stage):
    """A run that the encoder has gone through before: its folder, and what repeats it."""

    run: str = ""
    command: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord(Stage):
    """The results of one run; what ``results.json`` holds.

    Attributes:
        test: metrics by task, of tasks whose test data have labels, and of retrieval.
        density: kept / total by path of each pruned tensor.
        examples: training examples by task, after caps; empty if a run did not note them.
        labels: of each task that has some, also where the configuration leaves them to the data.
        truncated: texts cut to the encoder's length, by task.
        lineage: the runs that the encoder has gone through before, the first of them first.
    """

    test: Scores
    density: Mapping[str, Share]
    wall_seconds: Seconds
    seconds_per_step: Seconds = 0.0
    examples: Mapping[str, Count] = field(default_factory=dict)
    truncated: Mapping[str, Count] = field(default_factory=dict)
    labels: Mapping[str, list[Any]] = field(default_factory=dict)
    lineage: list[EarlierRun] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write ``results.json`` into ``folder``, with versions and the kind of machine."""
        content = {"schema": SCHEMA, **asdict(self), "versions": _versions(), "machine": _machine()}
        with atomic_file(folder / RESULTS) as beside:
            beside.write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Read the record of the run in ``folder``, also one of an earlier version.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is damaged (one sentence).
        """
        return checked(cls, _content(folder), name=RESULTS)

    @property
    def chain(self) -> tuple[Stage, ...]:
        """The runs before, the first of them first, and this one."""
        return (*self.lineage, self)

    @property
    def language(self) -> str | None:
        """The language whose rows alone the run has read; None for those its tasks ask for."""
        language: str | None = self.settings.get("data.language")
        return language


def is_finished(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a folder holds the results of the run that this configuration describes."""
    return has_results(folder) and _difference(folder, config) is None


def check_unfinished(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise a ValueError if a folder holds results, which another run would overwrite."""
    if not has_results(folder):
        return
    differs = ""
    if found := _difference(folder, config):
        key, before, now = found
        differs = f" in which {key} was {before!r}, and is {now!r} now"
    raise ValueError(
        f"Output folder {folder} already holds a finished run{differs}: choose another "
        "hydra.run.dir (or hydra.sweep.dir)."
    )


def read_score(folder: Path) -> float:
    """Return the score of a finished run."""
    return RunRecord.read(folder).score


def recorded_values(folder: Path, keys: Iterable[str]) -> list[float]:
    """Return numbers of a finished run, by dotted keys of ``results.json``.

    Raises:
        ValueError: if there is no such number.
    """
    content = read_json(folder / RESULTS)
    return [value_at(content, key, float, name=str(folder / RESULTS)) for key in keys]


def scores_by_task(logged: Mapping[str, Any], split: str) -> dict[str, dict[str, float]]:
    """Pick ``<split>/<task>/<metric>`` out of what a Trainer has logged."""
    scores: dict[str, dict[str, float]] = {}
    for key, value in logged.items():
        parts = key.split("/")
        if len(parts) == 3 and parts[0] == split:
            scores.setdefault(parts[1], {})[parts[2]] = float(value)
    return scores


def _content(folder: Path) -> Any:
    content = upgraded(read_json(folder / RESULTS), name=RESULTS)
    number = content.get("schema", SCHEMA) if isinstance(content, dict) else SCHEMA
    if number != SCHEMA:
        raise ValueError(
            f"{RESULTS} has schema {number!r}, but this version reads up to {SCHEMA}: it may have "
            "been written by a later version of multiprune"
        )
    return content


def _difference(folder: Path, config: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    record = RunRecord.read(folder)
    return difference(record.config, config, recorded=record.settings)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def _machine() -> dict[str, Any]:
    import os

    import torch

    return {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
