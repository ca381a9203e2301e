"""What came of each task, as a table on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.specialize.specialize import Manner, Outcome


def print_outcomes(manner: Manner, outcomes: Sequence[Outcome]) -> None:
    """Print one row a task."""
    draw = manner.draw
    title = f"{manner.recipe.method}: {draw.examples} examples, {draw.labels} labels"
    table = Table("task", title=title, title_justify="left")
    for head in ("kept", "dense", "metric", "before", "after"):
        table.add_column(head, justify="left" if head == "metric" else "right")
    for one in outcomes:
        metric = next(iter(one.after), "")
        scores = [f"{scores[metric]:.4f}" if scores else "" for scores in (one.before, one.after)]
        table.add_row(
            one.task,
            f"{one.budget['kept']:,}",
            f"{one.budget['dense']:,}",
            metric,
            *scores,
        )
    Console(highlight=False).print(table)
