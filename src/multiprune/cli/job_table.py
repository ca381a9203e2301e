"""Print the jobs of a sweep as a table that fits a terminal."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiprune.job_name import short_keys
from multiprune.message import printable
from multiprune.runs.duration import duration
from multiprune.runs.jobs import totals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from multiprune.runs.jobs import Job

# A folder that is called after its overrides, which have columns of their own.
_LONG = 20

# What the other columns take, of a run that goes on.
_OTHERS = 44

_NUMBERS: Mapping[str, Callable[[Job], str]] = {
    "step": lambda job: _step(job),
    "density": lambda job: "" if job.density is None else f"{job.density:.3f}",
    "score": lambda job: "" if job.score is None else f"{job.score:.4f}",
    "left": lambda job: "" if job.seconds_left is None else duration(job.seconds_left),
}


def print_jobs(jobs: Sequence[Job], *, reasons: bool = False) -> None:
    """Print a row for each job, with a column for each override that not all of them share.

    Below it stands why jobs have failed: a line for each reason, or with ``reasons`` all of it for
    each job.
    """
    console = Console()
    paths = _relative(jobs)
    varying = _fitting(_varying(jobs), console.width - _OTHERS)
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns: dict[str, list[str]] = {}
    if not varying or max(map(len, paths)) <= _LONG:
        columns["job"] = paths
    columns |= varying
    columns["state"] = [job.state for job in jobs]
    for name in columns:
        table.add_column(printable(name), overflow="fold")
    for name, number in _NUMBERS.items():
        if any(cells := [number(job) for job in jobs]):
            table.add_column(name, justify="right", no_wrap=True)
            columns[name] = cells
    for row in zip(*columns.values(), strict=True):
        table.add_row(*(escape(printable(cell)) for cell in row))
    console.print(table)
    for line in _each(jobs, paths) if reasons else _together(jobs):
        console.print(
            printable(line),
            no_wrap=not reasons,
            overflow="fold" if reasons else "ellipsis",
            highlight=False,
            markup=False,
        )
    console.print(totals(jobs), highlight=False)


def _relative(jobs: Sequence[Job]) -> list[str]:
    above = os.path.commonpath([job.path.resolve().parent for job in jobs])
    return [str(job.path.resolve().relative_to(above)) for job in jobs]


def _varying(jobs: Sequence[Job]) -> dict[str, list[str]]:
    """Return the values of overrides that not all jobs share, by short keys."""
    given = [dict(one.lstrip("+").partition("=")[::2] for one in job.overrides) for job in jobs]
    keys = [*dict.fromkeys(key for one in given for key in one)]
    keys = [key for key in keys if len({one.get(key) for one in given}) > 1]
    return {
        short: [one.get(key, "") for one in given]
        for short, key in zip(short_keys(keys), keys, strict=True)
    }


def _fitting(varying: dict[str, list[str]], width: int) -> dict[str, list[str]]:
    """Return columns that fit in ``width``: one for all overrides, if there are too many."""
    widths = [max(map(len, [name, *values])) + 2 for name, values in varying.items()]
    if sum(widths) <= width:
        return varying
    rows = zip(*varying.values(), strict=True)
    together = [
        " ".join(f"{name}={value}" for name, value in zip(varying, row, strict=True) if value)
        for row in rows
    ]
    return {"overrides": together}


def _each(jobs: Sequence[Job], paths: Sequence[str]) -> list[str]:
    return [
        f"{path}: {job.state}: {job.reason}"
        for job, path in zip(jobs, paths, strict=True)
        if job.reason
    ]


def _together(jobs: Sequence[Job]) -> list[str]:
    """Return each reason with the number of jobs that have it."""
    counts = Counter((job.state, " ".join(job.reason.split())) for job in jobs if job.reason)
    lines = [f"{count} {state}: {reason}" for (state, reason), count in counts.items()]
    return [*lines, "(--reasons prints them in full, with folders)"] if lines else []


def _step(job: Job) -> str:
    total = "" if job.total_steps is None else f"/{job.total_steps}"
    return "" if job.step is None else f"{job.step}{total}"
