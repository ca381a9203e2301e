"""Select the rows of a split: labelled ones, of chosen languages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from multiprune.tasks.columns import row_slices
from multiprune.tasks.labels import UNLABELLED
from multiprune.tasks.languages import languages_of
from multiprune.tasks.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from multiprune.tasks.task import Task

# Splits that there must be rows of.
_REQUIRED = ("train", "validation")


def check_language(language: str, tasks: Mapping[str, Task]) -> None:
    """Raise a ValueError unless all tasks declare a language."""
    for name, task in tasks.items():
        if not task.languages:
            raise ValueError(
                f"`data.language` chooses among the `languages` of a task, but {name} has none."
            )
        if language not in task.languages:
            raise ValueError(
                f"`data.language` must be of the languages of {name} "
                f"({', '.join(task.languages)}), but is {language}."
            )


def wanted_languages(task: Task, split: str, language: str | None = None) -> Sequence[str] | None:
    """Return the languages whose rows ``used_rows`` may use; None if a task does not tell any."""
    if language is not None:
        return [language]
    if split == "train" and task.train_languages is not None:
        return task.train_languages
    return task.languages or None


def used_rows(
    rows: Rows, task: Task, split: str, language: str | None = None
) -> tuple[int, Rows | None]:
    """Return how many rows of a split have no label, and those that are used, if there are any.

    With a ``language`` these are the rows in that alone, whatever the task trains on.

    Raises:
        ValueError: if a row is in a language that the task does not declare, or none is in
            ``language`` to train or to validate with.
    """
    mine = rows if language is None else in_language(rows, task, split, language)
    known = None if mine is None else labelled(mine, task)
    if mine is None or known is None:
        return 0, None
    unlabelled = len(mine.table) - len(known.table)
    return unlabelled, known if language is not None else in_languages(known, task, split)


def labelled(rows: Rows, task: Task) -> Rows | None:
    """Leave out rows whose label is not public, and a split that has no others."""
    if task.label not in rows.table.column_names or not task.marks_unlabelled:
        return rows
    marked = [
        [label == UNLABELLED for label in part.table[task.label][:]] for part in row_slices(rows)
    ]
    known = np.flatnonzero(~np.concatenate([np.zeros(0, bool), *marked]))
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
    kept = np.flatnonzero([language in wanted for language in found])
    return _selected(rows, kept, f"in {' '.join(wanted)}")


def in_language(rows: Rows, task: Task, split: str, language: str) -> Rows | None:
    """Leave out rows in other languages; None if no others are there.

    Raises:
        ValueError: if none is left to train or to validate with.
    """
    found = languages_of(rows, task.languages)
    kept = np.flatnonzero([one == language for one in found])
    if not len(kept) and split in _REQUIRED:
        there = [one for one in task.languages if one in set(found)]
        raise ValueError(
            f"{rows.origin} has no {split} rows in {language}, only in {', '.join(there)}."
        )
    return _selected(rows, kept, f"in {language}")


def without(rows: Rows, left_out: Sequence[int], which: str) -> Rows | None:
    """Leave out some rows; None if no others are there."""
    is_kept = np.ones(len(rows.table), bool)
    is_kept[left_out] = False
    kept = np.flatnonzero(is_kept)
    return _selected(rows, kept, f"without {which}")


def _selected(rows: Rows, kept: NDArray[np.int64], which: str) -> Rows | None:
    if len(kept) == len(rows.table):
        return rows
    if not len(kept):
        return None
    return Rows(rows.table.select(kept), rows.origin, f"{rows.fingerprint} {which}")
