"""The table that closes a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.report.records.results import Results


def print_summary(results: Results, folder: Path) -> None:
    """Print scores by task, parameters asked for and kept, and where the run's folder is."""
    console = Console()
    console.print(_score_table(results))
    console.print(_ledger_table(results))
    budget = results.budget
    console.print(
        f"Asked for {budget['asked']:,} and kept {budget['kept']:,} of {budget['dense']:,} "
        f"parameters ({budget['of']}), a density of {budget['kept'] / budget['dense']:.4f}."
    )
    console.print(f"{results.steps} steps in {results.wall_seconds:.0f} s. The run's folder:")
    console.print(str(folder), soft_wrap=True, markup=False, highlight=False)


def _score_table(results: Results) -> Table:
    table = Table("task", "metric")
    table.add_column("validation", justify="right")
    table.add_column("test", justify="right")
    for task, metrics in results.validation.items():
        for metric, value in metrics.items():
            test = results.test.get(task, {}).get(metric)
            shown = "" if test is None else f"{test:.4f}"
            table.add_row(task, metric, f"{value:.4f}", shown)
    for name, metrics in results.test.items():
        for metric, value in metrics.items() if name not in results.validation else ():
            table.add_row(name, metric, "", f"{value:.4f}")
    table.add_section()
    table.add_row("score", "mean of first metrics", f"{results.score:.4f}", "")
    return table


def _ledger_table(results: Results) -> Table:
    table = Table("part")
    for column in ("dense", "kept"):
        table.add_column(column, justify="right")
    table.add_column("pruned")
    for row in results.ledger:
        scope = "yes" if row["in_scope"] else "never"
        table.add_row(str(row["part"]), f"{row['dense']:,}", f"{row['kept']:,}", scope)
    return table
