"""Label spaces read from the training data, where a task does not list its labels."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from multiprune.data.selection import in_language, in_languages, wanted_languages
from multiprune.tasks.labelled import LabelledTask
from multiprune.tasks.labels import UNLABELLED, class_names, known

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from multiprune.tasks.rows import Rows
    from multiprune.tasks.task import Task

log = logging.getLogger(__name__)


def with_labels(
    tasks: Mapping[str, Task], *, mirror: Path | None, language: str | None = None
) -> dict[str, Task]:
    """Return tasks whose labels are known: where they are None, those of the training rows, sorted.

    Args:
        tasks: by name.
        mirror: folder of a local mirror to read instead of the hub.
        language: the only one whose rows are used; None for those that each task asks for.

    Raises:
        OSError: if a file does not exist.
        ValueError: if the training rows cannot be read, have no two labels, or do not tell what
            their labels are.
    """
    found = {}
    for name, task in tasks.items():
        found[name] = task
        if isinstance(task, LabelledTask) and task.labels is None:
            rows = _training_rows(name, task, mirror, language)
            labels = _labels(name, task, rows)
            shown = ", ".join(map(str, labels))
            log.info("%s: %d labels read from %s: %s", name, len(labels), rows.origin, shown)
            found[name] = replace(task, labels=labels)
    return found


def labels_of(tasks: Mapping[str, Task]) -> dict[str, list[Any]]:
    """Return the labels of those tasks that have some, as ``labels`` may be given."""
    found: dict[str, list[Any]] = {}
    for name, task in tasks.items():
        if isinstance(task, LabelledTask):
            labels = known(task.labels)
            found[name] = [*(labels.values or labels)]
    return found


def _training_rows(name: str, task: Task, mirror: Path | None, language: str | None) -> Rows:
    languages = wanted_languages(task, "train", language)
    columns = replace(task.columns, text=())
    loaded = task.source.load("train", mirror=mirror, languages=languages, columns=columns)
    rows = None
    if loaded is not None and language is not None:
        rows = in_language(loaded, task, "train", language)
    elif loaded is not None:
        rows = in_languages(loaded, task, "train")
    if rows is None:
        raise ValueError(
            f"`labels` of {name} is null, but there are no training rows to read labels from."
        )
    return rows


def _labels(name: str, task: LabelledTask, rows: Rows) -> Sequence[str | int]:
    where = f"Column {task.label!r} of {rows.origin}"
    if not task.names_labels:
        raise ValueError(f"`labels` of {name} must name the labels that `indicators` stand for.")
    labels: Sequence[str | int] = class_names(rows.table, task.label)
    if not labels:
        values = rows.table[task.label][:]
        if any(isinstance(one, list) for one in values):
            values = [*chain.from_iterable(filter(None, values))]
        if structured := [one for one in values if isinstance(one, dict | list)]:
            raise ValueError(
                f"{where} must hold names or integers, from which `labels` of {name} are read, but "
                f"holds {structured[0]!r}."
            )
        labels = _distinct(name, {one for one in values if one is not None}, where)
    if len(labels) < 2:
        shown = ", ".join(map(str, labels)) or "none"
        raise ValueError(f"{where} must hold two or more labels, but holds {shown}.")
    return sorted(labels)


def _distinct(name: str, values: set[Any], where: str) -> list[str] | list[int]:
    if all(isinstance(one, str) for one in values):
        return [*values]
    if all(isinstance(one, bool) for one in values):
        # Whose positions among the names are what they are as numbers.
        return ["False", "True"]
    numbers = [one for one in values if isinstance(one, int | float) and float(one).is_integer()]
    if len(numbers) < len(values):
        other = next(one for one in values if one not in numbers)
        raise ValueError(
            f"{where} must hold names or integers, from which `labels` of {name} are read, but "
            f"holds {other!r}; a number is learned by Regression."
        )
    integers = sorted(int(one) for one in numbers)
    if UNLABELLED in integers:
        raise ValueError(
            f"{where} holds -1, which may be a label or mean that there is none: "
            f"task.{name}.labels must list the labels, with or without it, of {integers}."
        )
    return integers
