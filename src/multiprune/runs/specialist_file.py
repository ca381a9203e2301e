"""``specialists.json``: scores of the specialized models of one job."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multiprune.runs.command import command_of
from multiprune.runs.frame import Skipped
from multiprune.runs.json_value import value_at
from multiprune.runs.schema import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SPECIALISTS = "specialists.json"

#: Methods that choose what to prune without looking at an example.
WITHOUT_EXAMPLES = ("magnitude", "random")

#: Settings of a job, besides the options of its method, that scores depend on.
_CONFIGURED = ("rank", "rounds", "weight_by_confidence", "validation_rows")


@dataclass(frozen=True, order=True)
class Calibration:
    """How many examples of each task a method has looked at, and whose labels they had."""

    examples: int
    labels: str

    def __str__(self) -> str:
        examples = "1 example" if self.examples == 1 else f"{self.examples:,} examples"
        return f"{examples} a task with {self.labels} labels"


@dataclass(frozen=True, kw_only=True)
class Specialist:
    """One task's smaller model; ``score`` is its first metric."""

    task: str
    asked: int
    kept: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Elsewhere(Specialist):
    """The same on other ``data`` than its examples are from; ``whole`` is the model's score."""

    data: str
    whole: float


@dataclass(frozen=True)
class UnitOverlap:
    """Intersection over union of what tasks keep, by kind of unit and pair of tasks, in order."""

    tasks: tuple[str, ...]
    shared: Mapping[str, Mapping[tuple[str, str], float]]


@dataclass(frozen=True, kw_only=True)
class SpecialistFile:
    """What one job has found.

    Attributes:
        path: the job's folder.
        run: the model that specialists are cut out of.
        options: of the method and the job, without the seed.
        setting: None if what is pruned and what is left depends on no example.
        of: what is counted, of which the whole model has so many ``dense``.
        whole: the score of the whole model by task.
        metrics: the name of each task's score.
        overlap: by asked size.
        command: what repeats the job; None where Hydra has left no trace of it.
    """

    path: Path
    run: str
    method: str
    options: Mapping[str, Any]
    repair: str
    setting: Calibration | None
    seed: int
    of: str
    dense: int
    whole: Mapping[str, float]
    metrics: Mapping[str, str]
    specialists: Sequence[Specialist]
    unseen: Sequence[Elsewhere]
    overlap: Mapping[int, UnitOverlap]
    seconds: float
    command: str | None

    @property
    def tasks(self) -> tuple[str, ...]:
        """By name."""
        return tuple(sorted({one.task for one in self.specialists}))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Asked for, the smallest first."""
        return tuple(sorted({one.asked for one in self.specialists}))


def specialist_folders(path: Path) -> list[Path]:
    """Return the folders of jobs that have left specialists in ``path`` and below it."""
    return [Path(name) for name, _, files in os.walk(path) if SPECIALISTS in files]


def read_specialist_files(
    folders: Iterable[Path],
) -> tuple[list[SpecialistFile], list[Skipped]]:
    """Read the file of every job, each once, by path; one that is damaged is skipped."""
    found = {folder.resolve(): folder for folder in reversed(list(folders))}
    files: list[SpecialistFile] = []
    skipped: list[Skipped] = []
    for real in sorted(found):
        try:
            files.append(read_specialist_file(found[real] / SPECIALISTS))
        except (ValueError, OSError) as error:
            skipped.append(Skipped(found[real], str(error)))
    return files, skipped


def read_specialist_file(file: Path) -> SpecialistFile:
    """Read what one job has found.

    Raises:
        ValueError: if the file is damaged (says what is wrong).
    """
    try:
        content = read_json(file)
    except ValueError as error:
        raise ValueError(f"{file.parent}: {error}") from None
    name = str(file)
    method, repair = (value_at(content, key, str, name=name) for key in ("method", "repair"))
    whole, metrics = _whole(content, name)
    one = SpecialistFile(
        path=file.parent,
        run=value_at(content, "run", str, name=name),
        method=method,
        options=_options(content, name),
        repair=repair,
        setting=_setting(content, method, repair, name),
        seed=value_at(content, "seed", int, name=name),
        of=value_at(content, "of", str, name=name),
        dense=value_at(content, "dense", int, name=name),
        whole=whole,
        metrics=metrics,
        specialists=[
            Specialist(**_specialist(one, name))
            for one in value_at(content, "specialists", list, name=name)
        ],
        unseen=[_elsewhere(one, name) for one in value_at(content, "unseen", list, name=name)],
        overlap=_overlaps(value_at(content, "overlap", dict, name=name), name),
        seconds=value_at(content, "seconds", float, name=name),
        command=command_of(file.parent),
    )
    _check(one, name)
    return one


def _check(one: SpecialistFile, name: str) -> None:
    if one.dense < 1 or not one.specialists:
        raise ValueError(
            f"A file of specialists must hold at least one, of a model with parameters, but {name} "
            f"has {len(one.specialists)} of {one.dense:,} parameters."
        )
    cells = [(one.task, one.asked) for one in one.specialists]
    whole = [(task, asked) for task in one.tasks for asked in one.sizes]
    if sorted(cells) != whole:
        wrong = next(cell for cell in whole if cells.count(cell) != 1)
        raise ValueError(
            f"Each task must have one specialist of each size, but {name} has "
            f"{cells.count(wrong)} of {wrong[0]} at {wrong[1]:,} parameters."
        )
    answered = {unseen.task for unseen in one.unseen}
    if missing := sorted({*one.tasks, *answered} - {*one.whole}):
        raise ValueError(f"`whole` of {name} has no score of {missing[0]}")


def _options(content: Any, name: str) -> dict[str, Any]:
    options = value_at(content, "options", dict, name=name)
    config = content.get("config")
    # Before there were rounds in a study, there was one.
    configured = {"rounds": 1, **config} if isinstance(config, dict) else {}
    if "relative" in configured:
        ranks = {"True": "by_module", "False": "together"}
        configured["rank"] = ranks.get(str(configured["relative"]))
    options |= {key: configured[key] for key in _CONFIGURED if key in configured}
    # The seed tells draws apart, which are one curve.
    return {key: value for key, value in options.items() if key != "seed"}


def _setting(content: Any, method: str, repair: str, name: str) -> Calibration | None:
    # Whatever is pruned, what is left is repaired by examples.
    if method in WITHOUT_EXAMPLES and repair == "none":
        return None
    examples = value_at(content, "examples", int, name=name)
    if examples < 1:
        raise ValueError(f"`examples` of {name} must be at least 1, but is {examples}")
    return Calibration(examples, value_at(content, "labels", str, name=name))


def _whole(content: Any, name: str) -> tuple[dict[str, float], dict[str, str]]:
    whole = value_at(content, "whole", dict, name=name)
    scores = {task: _score(whole, task, name) for task in whole}
    return scores, {task: next(iter(metrics)) for task, metrics in whole.items()}


def _specialist(content: Any, name: str) -> dict[str, Any]:
    return {
        "task": value_at(content, "task", str, name=name),
        "asked": value_at(content, "asked", int, name=name),
        "kept": value_at(content, "kept", int, name=name),
        "score": _score(content, "metrics", name),
    }


def _elsewhere(content: Any, name: str) -> Elsewhere:
    return Elsewhere(
        **_specialist(content, name),
        data=value_at(content, "data", str, name=name),
        whole=_score(content, "whole", name),
    )


def _score(content: Any, key: str, name: str) -> float:
    """Return the first of the metrics below a key."""
    metrics = content.get(key) if isinstance(content, dict) else None
    first = next(iter(metrics.values()), None) if isinstance(metrics, dict) else None
    if not isinstance(first, (int, float)) or isinstance(first, bool) or not math.isfinite(first):
        raise ValueError(f"`{key}` of {name} must start with a score, but is {metrics!r}")
    return float(first)


def _overlaps(content: Mapping[str, Any], name: str) -> dict[int, UnitOverlap]:
    try:
        return {int(asked): _overlap(one) for asked, one in content.items()}
    except (ValueError, TypeError, KeyError, IndexError):
        raise ValueError(
            f"`overlap` of {name} must hold, for each size, tasks and a number for each two of them"
        ) from None


def _overlap(content: Mapping[str, Any]) -> UnitOverlap:
    tasks, shared = content["tasks"], {}
    if not all(isinstance(task, str) for task in tasks):
        raise TypeError
    for kind, rows in content.items():
        if kind != "tasks":
            pairs = {
                (first, second): float(rows[y][x])
                for y, first in enumerate(tasks)
                for x, second in enumerate(tasks)
            }
            shared[kind] = {pair: one for pair, one in pairs.items() if math.isfinite(one)}
    return UnitOverlap(tuple(tasks), shared)
