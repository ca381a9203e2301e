"""Label spaces: names, their integers in the data, and class ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from datasets import Dataset

    from multiprune.tasks.rows import Rows

_INTEGER = re.compile(r"-?\d+")

#: The hub's sign for an example whose label is not public.
UNLABELLED = -1


class Labels(list[str]):
    """The names of a label space, by id.

    Attributes:
        values: the integers that data have for them, where labels are integers; None where labels
            are names, and an integer is the position of one.
    """

    def __init__(self, names: Iterable[str], values: Sequence[int] | None = None) -> None:
        super().__init__(names)
        self.values = values

    @property
    def definition(self) -> dict[str, Any]:
        """What tells one label space from another."""
        return {"labels": [*self]} | ({} if self.values is None else {"values": [*self.values]})

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> Labels:
        """Return the label space that ``definition`` is of.

        Raises:
            LookupError, TypeError: if it names no labels.
        """
        labels = definition["labels"]
        if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
            raise TypeError(f"its labels must be names, but are {labels!r}")
        return cls(labels, definition.get("values"))


def checked_labels(labels: Sequence[Any]) -> Labels:
    """Return a label space of names, or of integers, two or more and all different.

    Raises:
        ValueError: if labels are no such.
    """
    if isinstance(labels, Labels):
        return labels
    if not isinstance(labels, Sequence):
        raise ValueError(f"`labels` must be a list of names or one of integers, but is {labels!r}.")
    if any(isinstance(one, bool) for one in labels):
        raise ValueError(
            f"`labels` must be names or integers, but are {list(labels)}: names such as 'yes', "
            "'no' and 'true' need quotes in YAML."
        )
    kinds = {type(one) for one in labels}
    if isinstance(labels, str) or kinds not in ({str}, {int}, set()):
        raise ValueError(
            f"`labels` must be a list of names or one of integers, but are {labels!r}."
        )
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ValueError(
            f"`labels` must be two or more different names or integers, but are {list(labels)}."
        )
    return Labels(map(str, labels), [*labels] if kinds == {int} else None)


def known(labels: Sequence[Any] | None) -> Labels:
    """Return the label space of a task, which must have been read if it was not given.

    Raises:
        ValueError: if it was not.
    """
    if not isinstance(labels, Labels):
        raise ValueError(
            "`labels` is null, so they must be read from the training data: see `with_labels`."
        )
    return labels


def marks_unlabelled(labels: Sequence[Any] | None) -> bool:
    """Whether a label of -1 means that there is none."""
    values = labels.values if isinstance(labels, Labels) else None
    return UNLABELLED not in (values or ())


@dataclass(frozen=True)
class LabelReader:
    """Turns the labels of a column into ids: names, integers, or positions of names.

    Attributes:
        labels: the label space.
        by_integer: the id of each integer that data may hold.
        where: the column, as messages name it.
        first: the number of the row that is read first.
    """

    labels: Labels
    by_integer: Mapping[float, int]
    where: str
    first: int = 0

    def ids(self, values: Sequence[Any], *, row: int | None = None) -> list[int]:
        """Return the ids of labels; all are of one ``row`` if that is given.

        Raises:
            ValueError: at the first value that is no label.
        """
        found = []
        for place, value in enumerate(values):
            if isinstance(value, str):
                index = self._by_name.get(value)
            else:
                index = self.by_integer.get(value) if isinstance(value, int | float) else None
            if index is None:
                position = "" if self.labels.values is not None else " or its position from 0"
                raise ValueError(
                    f"{self.where} must hold one of {len(self.labels)} labels "
                    f"({', '.join(self.labels)}){position}, but row "
                    f"{self.first + place if row is None else row} is {value!r}."
                )
            found.append(index)
        return found

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.labels)}


def label_reader(rows: Rows, column: str, labels: Labels) -> LabelReader:
    """Return what reads a column, by the names that its file has for classes if there are any.

    Raises:
        ValueError: if the file has other names than the label space.
    """
    where = f"Column {column!r} of {rows.origin}"
    # What transformers calls classes that have no names says nothing of their order.
    unnamed = labels == [f"LABEL_{number}" for number in range(len(labels))]
    names = [] if unnamed else class_names(rows.table, column)
    if unknown := [one for one in names if one not in labels]:
        raise ValueError(
            f"{where} must have class names that are among `labels` ({', '.join(labels)}), but has "
            f"{', '.join(names)}: {', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} not."
        )
    by_integer: dict[float, int]
    if names:
        by_integer = {number: labels.index(name) for number, name in enumerate(names)}
    elif labels.values is not None:
        by_integer = {value: index for index, value in enumerate(labels.values)}
    else:
        _check_positions(rows, column, labels, where)
        by_integer = {index: index for index in range(len(labels))}
    return LabelReader(labels, by_integer, where, rows.first)


def _check_positions(rows: Rows, column: str, labels: Labels, where: str) -> None:
    """Refuse names that look like integers where the data's integers are taken for positions."""
    feature = rows.table.features[column]
    dtype = str(getattr(getattr(feature, "feature", feature), "dtype", ""))
    looks = all(_INTEGER.fullmatch(one) for one in labels)
    if looks and "int" in dtype and labels != [str(place) for place in range(len(labels))]:
        raise ValueError(
            f"{where} holds integers, which would be positions of the names {', '.join(labels)}: "
            f"write `labels` without quotes, [{', '.join(labels)}], if they are its values."
        )


def class_names(table: Dataset, column: str) -> list[str]:
    """Return the names that a table has for the integers of a column of classes; none if none.

    Names that are the integers themselves, or False and True, say nothing.
    """
    feature = table.features[column]
    names = getattr(getattr(feature, "feature", feature), "names", None) or []
    silent = ([str(number) for number in range(len(names))], ["False", "True"])
    return [] if names in silent else [*names]
