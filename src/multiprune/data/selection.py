"""Which rows of a split are used: those with a label, and to train, those in some languages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.tasks.languages import languages_of
from multiprune.tasks.task import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.tasks.task import Task

# The hub's sign for an example whose label is not public.
_UNLABELLED = -1


def labelled(rows: Rows, task: Task) -> Rows | None:
    """Leave out rows whose label is not public, and a split that has no others."""
    if task.label not in rows.table.column_names or not task.marks_unlabelled:
        return rows
    known = [row for row, label in enumerate(rows.table[task.label][:]) if label != _UNLABELLED]
    return _selected(rows, known, "labelled")


def in_languages(rows: Rows, task: Task, split: str) -> Rows | None:
    """Leave out training rows that are in no language to train on; None if no others are there.

    Raises:
        ValueError: if a row of any split is in a language that the task does not declare.
    """
    if not task.languages:
        return rows
    found = languages_of(rows, task.languages)
    if split != "train" or task.train_languages is None:
        return rows
    wanted = task.train_languages
    kept = [row for row, language in enumerate(found) if language in wanted]
    return _selected(rows, kept, f"in {' '.join(wanted)}")


def _selected(rows: Rows, kept: Sequence[int], which: str) -> Rows | None:
    if len(kept) == len(rows.table):
        return rows
    if not kept:
        return None
    return Rows(rows.table.select(kept), rows.origin, f"{rows.fingerprint} {which}")
