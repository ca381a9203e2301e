"""Frames as HTML, Markdown, CSV and JSON: one value, one way to write it in each."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import TypedDict

from multiprune.report.compare import Difference, Spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from multiprune.report.page.section import Section, Table
    from multiprune.runs.frame import Skipped

#: Of ``report.json``; docs/report.schema.json says what is in it.
SCHEMA = 1


class JsonSpread(TypedDict):
    """A mean over seeds, and the lowest and highest of them, null where they are not known."""

    mean: float
    low: float | None
    high: float | None
    seeds: int


class JsonDifference(TypedDict):
    """A mean difference that is paired by seed.

    ``low`` and ``high`` are of 95 % of resamples: of ``seeds`` and, if ``examples`` is true, of the
    evaluation examples; ``reason`` says why not. ``p`` is of no difference.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    seeds: list[int]
    examples: bool
    reason: str | None


class JsonSection(TypedDict):
    """A question: its answer in a sentence (or empty), and its tables by name, as rows."""

    title: str
    answer: str
    tables: dict[str, list[dict[str, JsonSpread | JsonDifference | float | str | bool | None]]]


class JsonSkipped(TypedDict):
    """What was found and is not used, and why."""

    path: str
    reason: str


class JsonReport(TypedDict):
    """``report.json``: what the page says first, and every table of each section."""

    schema: int
    title: str
    answers: list[str]
    sections: dict[str, JsonSection]
    skipped: list[JsonSkipped]


@dataclass(frozen=True)
class Cell:
    """A cell of a table as a person reads it; ``key`` is what its column is sorted by."""

    text: str
    key: float | str = ""

    @property
    def is_number(self) -> bool:
        """Whether it is set to the right."""
        return not isinstance(self.key, str)


def cell(value: Any, digits: int = 3) -> Cell:
    """Return a value as it is shown: counts with commas, other numbers with ``digits``."""
    if is_missing(value):
        return Cell("")
    if isinstance(value, Spread | Difference):
        return Cell(str(value), value.mean)
    if isinstance(value, int | np.integer):
        return Cell(f"{value:,}", int(value))
    if isinstance(value, float | np.floating):
        return Cell(f"{value:,.{digits}f}", float(value))
    return Cell(str(value), str(value))


def is_missing(value: Any) -> bool:
    """Whether a cell is empty."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def cells(table: Table) -> list[list[Cell]]:
    """Return the cells of a table by row."""
    digits = [table.digits.get(column, 3) for column in table.frame.columns]
    return [
        [cell(value, count) for value, count in zip(row, digits, strict=True)]
        for row in table.frame.itertuples(index=False, name=None)
    ]


def as_json(
    title: str, answers: Sequence[str], sections: Sequence[Section], skipped: Sequence[Skipped]
) -> str:
    """Return all tables of a report by section and name, as rows of named values."""
    content = {
        "schema": SCHEMA,
        "title": title,
        "answers": list(answers),
        "sections": {
            section.name: {
                "title": section.title,
                "answer": section.answer,
                "tables": {table.name: records(table.frame) for table in section.tables},
            }
            for section in sections
        },
        "skipped": [{"path": str(one.path), "reason": one.reason} for one in skipped],
    }
    return json.dumps(content, indent=2) + "\n"


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as JSON has them; scores over seeds are objects of their own."""
    rows = frame.itertuples(index=False, name=None)
    return [dict(zip(frame.columns, map(_plain, row), strict=True)) for row in rows]


def as_csv(frame: pd.DataFrame) -> str:
    """Return a line a row."""
    return str(frame.to_csv(index=False, lineterminator="\n"))


def as_markdown(
    title: str, answers: Sequence[str], sections: Sequence[Section], *, figures: bool
) -> str:
    """Return the text and tables of a page; ``figures`` are files beside it."""
    return "\n".join(_markdown(title, answers, sections, figures=figures)) + "\n"


def _plain(value: Any) -> Any:
    if is_missing(value):
        return None
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.item() if isinstance(value, np.generic) else value


def _markdown(
    title: str, answers: Sequence[str], sections: Sequence[Section], *, figures: bool
) -> Iterator[str]:
    yield f"# {title}"
    yield from (f"\n{answer}" for answer in answers)
    for section in sections:
        yield f"\n## {section.title}"
        yield from (f"\n{text}" for text in (section.answer, *section.text) if text)
        for figure in section.figures if figures else ():
            yield f"\n![{_words(figure.alt)}]({figure.name}.svg)\n\n{figure.caption}"
        for table in section.tables:
            yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield f"\n**{table.caption}**\n"
    yield f"| {' | '.join(map(_words, table.frame.columns))} |"
    yield f"|{'|'.join(['---'] * len(table.frame.columns))}|"
    for row in cells(table):
        shown = (
            f"`{one.text}`" if column == table.command and one.text else one.text
            for column, one in zip(table.frame.columns, row, strict=True)
        )
        yield f"| {' | '.join(map(_words, shown))} |"


def _words(words: str) -> str:
    return words.replace("|", r"\|").replace("\n", " ")
