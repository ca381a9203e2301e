"""What a page is made of, before it is HTML or Markdown: sections with tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.figure import Figure as Drawing

    from multiprune.report.findings.contender import Statistic
    from multiprune.report.findings.difference import Difference
    from multiprune.report.records.frame import LeftOut


@dataclass(frozen=True)
class Cell:
    """A cell of a table; ``key`` is what its column is sorted by, a number where it is one."""

    text: str
    key: float | str | None = None

    @property
    def is_number(self) -> bool:
        """Whether the column is set to the right."""
        return isinstance(self.key, (int, float))


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; ``name`` is its own within a page.

    Attributes:
        folded: whether it is shown only when asked for.
        sortable: whether the order of rows has no meaning of its own.
        copied: the column whose cells are commands.
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    sortable: bool = True
    copied: int | None = None


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
    """A heading, paragraphs, and below them figures and tables."""

    name: str
    title: str
    text: Sequence[str]
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


EMPTY = Cell("")


def text(value: str) -> Cell:
    """Return words."""
    return Cell(value, value)


def count(value: int) -> Cell:
    """Return a whole number."""
    return Cell(f"{value:,}", value)


def number(value: float | None, digits: int = 3) -> Cell:
    """Return a number with so many digits behind the point; None stays empty."""
    return EMPTY if value is None else Cell(f"{value:,.{digits}f}", value)


def statistic(value: Statistic | None) -> Cell:
    """Return a mean over seeds and their extremes."""
    if value is None:
        return EMPTY
    spread = ""
    if value.low is not None and value.high is not None and value.seeds > 1:
        spread = f" ({value.low:.3f} to {value.high:.3f})"
    return Cell(f"{value.mean:.3f}{spread}", value.mean)


def difference(value: Difference | None) -> Cell:
    """Return a difference and its interval."""
    if value is None:
        return EMPTY
    ends = "" if value.low is None else f" [{value.low:+.3f} to {value.high:+.3f}]"
    return Cell(f"{value.mean:+.3f}{ends}", value.mean)


def setting_table(facts: Mapping[str, str]) -> Table:
    """Return what holds for all that a page compares."""
    return Table(
        name="compared",
        caption="The setting",
        columns=["", "value"],
        rows=[[text(name), text(value)] for name, value in facts.items()],
        sortable=False,
    )


def left_out_table(
    name: str, caption: str, left_out: Sequence[LeftOut], *, of: str = "run"
) -> Table:
    """List runs, or what else is read, that are not used."""
    rows = [[text(str(one.path)), text(one.reason)] for one in left_out]
    return Table(
        name=name, caption=caption, columns=[of, "reason"], rows=rows, folded=len(rows) > 12
    )


def plural(number_of: int, noun: str) -> str:
    """Return how many there are of something."""
    return f"{number_of:,} {noun}{'' if number_of == 1 else 's'}"
