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


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows of named values as a frame whose values stay as they are."""
    found = [dict(row) for row in rows]
    columns = list(dict.fromkeys(column for row in found for column in row))
    return pd.DataFrame(found, columns=columns, dtype=object)


def table(
    name: str, caption: str, rows: Iterable[Mapping[str, Any]], *, fold: int = 24, **options: Any
) -> Table:
    """Return a table of rows of named values, folded where there are more than ``fold``."""
    shown = frame(rows)
    return Table(name=name, caption=caption, frame=shown, folded=len(shown) > fold, **options)


def facts_table(name: str, facts: Mapping[str, str]) -> Table:
    """Return what holds for all that a section is of."""
    rows = [{"": fact, "value": value} for fact, value in facts.items()]
    return table(name, "The setting", rows, sortable=False)


def skipped_table(name: str, caption: str, skipped: Sequence[Skipped], *, of: str = "run") -> Table:
    """List what is not used."""
    rows = ({of: str(one.path), "reason": one.reason} for one in skipped)
    return table(name, caption, rows, fold=12)


def distinct(names: Iterable[str]) -> list[str]:
    """Return names of which those that came before get a number."""
    counts: dict[str, int] = {}
    found = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        found.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return found


def plural(number_of: int, noun: str) -> str:
    """Return how many there are of something."""
    return f"{number_of:,} {noun}{'' if number_of == 1 else 's'}"


def slug(text: str) -> str:
    """Return text as a part of a name of a file."""
    return re.sub(r"\W", "_", text)


def joined(names: Sequence[str]) -> str:
    """Return names as a sentence lists them."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
