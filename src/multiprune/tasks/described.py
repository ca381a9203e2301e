"""Rebuild a task from the description in an exported model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multiprune.metrics.catalogue import named_metrics
from multiprune.tasks.subclasses import subclasses
from multiprune.tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from multiprune.tasks.rows import Source


def task_from(name: str, description: Mapping[str, Any], source: Source) -> Task:
    """Return the task that a description is of, with the metrics that are usual for its kind.

    What is not described is as usual: answers are compared as in SQuAD, and rows have no languages.

    Raises:
        ValueError: if the description does not say enough.
    """
    kinds = [one for one in subclasses(Task, __package__) if one.is_described_by(description)]  # type: ignore[type-abstract]
    if not kinds:
        raise ValueError(
            f"How {name!r} is evaluated is known from its run alone: name it with `--data-of`."
        )
    kind = kinds[-1]
    try:
        return kind(
            text=description["text"],
            label=description["label"],
            source=source,
            metrics=named_metrics(kind.usual_metrics),
            **kind.described_settings(description),
        )
    except KeyError as error:
        raise ValueError(f"The description of {name!r} must have {error}, but has not.") from error
