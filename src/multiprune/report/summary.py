"""The table that closes a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.runs.record import RunRecord


def print_summary(record: RunRecord, folder: Path) -> None:
    """Print scores by task, parameters asked for and kept, and where the run's folder is."""
    console = Console()
    console.print(_score_table(record))
    console.print(_ledger_table(record))
    console.print(str(record.budget))
    console.print(f"{record.steps} steps in {record.wall_seconds:.0f} s. The run's folder:")
    console.print(str(folder), soft_wrap=True, markup=False, highlight=False)


def _score_table(record: RunRecord) -> Table:
    table = Table("task", "metric")
    table.add_column("validation", justify="right")
    table.add_column("test", justify="right")
    for task, metrics in record.validation.items():
        for metric, value in metrics.items():
            test = record.test.get(task, {}).get(metric)
            shown = "" if test is None else f"{test:.4f}"
            table.add_row(task, metric, f"{value:.4f}", shown)
    for name, metrics in record.test.items():
        for metric, value in metrics.items() if name not in record.validation else ():
            table.add_row(name, metric, "", f"{value:.4f}")
    table.add_section()
    table.add_row("score", "mean of first metrics", f"{record.score:.4f}", "")
    return table


def _ledger_table(record: RunRecord) -> Table:
    table = Table("part")
    for column in ("dense", "kept"):
        table.add_column(column, justify="right")
    table.add_column("pruned")
    for row in record.ledger:
        scope = "yes" if row.in_scope else "never"
        table.add_row(row.part, f"{row.dense:,}", f"{row.kept:,}", scope)
    return table
