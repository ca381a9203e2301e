"""Read and check the columns of a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from multiprune.tasks.rows import Rows


# So many rows are Python objects at a time.
_ROWS = 500


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that are read of a table; whatever else it has is left alone.

    Attributes:
        text: that hold texts, or lists of words. A file without types has nothing else in them.
        others: that hold labels and what else is read.
        classes: the column of classes, of which each part of a table that is split gets its share;
            None if rows have none.
    """

    text: Sequence[str]
    others: Sequence[str] = ()
    classes: str | None = None

    @property
    def names(self) -> list[str]:
        """The names of all columns, each once."""
        return [*dict.fromkeys([*self.text, *self.others])]

    def without(self, name: str) -> Columns:
        """Return all columns but one."""
        return replace(self, others=[one for one in self.others if one != name])


def row_slices(rows: Rows) -> Iterator[Rows]:
    """Yield some rows at a time, which know where among all of them they begin."""
    for first in range(0, len(rows.table), _ROWS):
        table = rows.table.select(range(first, min(first + _ROWS, len(rows.table))))
        yield replace(rows, table=table, first=rows.first + first)


def check_present(names: Sequence[str], present: Sequence[str], origin: str) -> None:
    """Raise a ValueError if a table lacks a column."""
    for name in names:
        if name not in present:
            raise ValueError(f"{origin} must have a column {name!r}, but has {', '.join(present)}.")


def check_values(rows: Rows, names: Sequence[str]) -> None:
    """Raise a ValueError if a column has no value in some row."""
    for name in names:
        # A slice is a list; element by element, a column of `datasets` is read anew.
        values = rows.table[name][:]
        if None in values:
            raise ValueError(
                f"Column {name!r} of {rows.origin} must hold a value in each row, but row "
                f"{rows.first + values.index(None)} is null."
            )


def check_texts(rows: Rows, names: Sequence[str], *, words: bool) -> None:
    """Raise a ValueError unless columns hold texts, or, if they are ``words``, lists of texts."""
    import pyarrow

    for name in names:
        found = value = rows.table.features.arrow_schema.field(name).type
        if words:
            value = found.value_type if _is_list(found) else None
        texts = (pyarrow.string(), pyarrow.large_string(), pyarrow.null())
        if value not in texts:
            what = "lists of words" if words else "texts"
            raise ValueError(
                f"Column {name!r} of {rows.origin} must hold {what}, but holds {found}."
            )


def check_lists(rows: Rows, name: str) -> None:
    """Raise a ValueError unless a column holds a list of labels in each row."""
    found = rows.table.features.arrow_schema.field(name).type
    if not _is_list(found):
        raise ValueError(
            f"Column {name!r} of {rows.origin} must hold a list of labels in each row, but holds "
            f"{found}."
        )


def _is_list(kind: object) -> bool:
    import pyarrow

    return isinstance(kind, pyarrow.ListType | pyarrow.LargeListType | pyarrow.FixedSizeListType)
