"""What a page is made of: sections with text, tables, which are frames, and figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from multiprune.runs.frame import Skipped


@dataclass(frozen=True, kw_only=True)
class Table:
    """A frame, and how it is shown; ``name`` is its own within a page.

    Attributes:
        folded: whether it is shown only when asked for.
        sortable: whether the order of rows has no meaning of its own.
        command: the column whose cells are commands, to be copied.
        digits: behind the point, of the columns that do not have three.
    """

    name: str
    caption: str
    frame: pd.DataFrame
    folded: bool = False
    sortable: bool = True
    command: str | None = None
    digits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure, drawn when it is needed; ``alt`` says what is to be seen on it."""

    name: str
    caption: str
    alt: str
    draw: Callable[[], Drawing]
    wide: bool = True


@dataclass(frozen=True, kw_only=True)
class Section:
    """A question: its answer in a sentence, what to know about it, figures and tables.

    Attributes:
        answer: empty where there is nothing to say in a sentence.
        leads: whether the answer may stand below the title of the page.
        tables: those without rows are left out.
    """

    name: str
    title: str
    answer: str = ""
    leads: bool = True
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "tables", [table for table in self.tables if len(table.frame)])


def frame(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """Return a frame whose values stay as they are; columns of one name get numbers."""
    counts: dict[str, int] = {}
    named = []
    for column in columns:
        counts[column] = counts.get(column, 0) + 1
        named.append(column if counts[column] == 1 else f"{column} {counts[column]}")
    return pd.DataFrame([list(row) for row in rows], columns=named, dtype=object)


def known_columns(values: pd.DataFrame) -> pd.DataFrame:
    """Return a frame without the columns that are empty in all rows."""
    return values[[name for name in values.columns if values[name].notna().any()]]


def skipped_table(name: str, caption: str, skipped: Sequence[Skipped], *, of: str = "run") -> Table:
    """List what is not used."""
    rows = [(str(one.path), one.reason) for one in skipped]
    shown = frame([of, "reason"], rows)
    return Table(name=name, caption=caption, frame=shown, folded=len(rows) > 12)


def plural(number_of: int, noun: str) -> str:
    """Return how many there are of something."""
    return f"{number_of:,} {noun}{'' if number_of == 1 else 's'}"


def slug(text: str) -> str:
    """Return text as a part of a name of a file."""
    return re.sub(r"\W", "_", text)


def joined(names: Sequence[str]) -> str:
    """Return names as a sentence lists them."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
