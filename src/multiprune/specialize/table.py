"""Print the specialized models as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.specialize.recipe import Recipe
    from multiprune.specialize.specialize import Outcome


def print_outcomes(recipe: Recipe, outcomes: Sequence[Outcome]) -> None:
    """Print one row a model, and below it its scores by language if it is for several."""
    title = f"{recipe.method}: {recipe.examples} examples, {recipe.labels} labels"
    by_language = any(one.language for one in outcomes)
    table = Table("task", title=title, title_justify="left")
    for head in (*["language"] * by_language, "kept", "dense", "metric", "before", "after"):
        table.add_column(head, justify="left" if head in ("language", "metric") else "right")
    for one in outcomes:
        sizes = [f"{getattr(one.budget, key):,}" for key in ("kept", "dense")]
        named = [one.task, *[one.language or ""] * by_language, *sizes]
        for metric in _shown(one):
            scores = [
                f"{scores[metric]:.4f}" if scores else "" for scores in (one.before, one.after)
            ]
            table.add_row(*named, metric, *scores)
            named = [""] * len(named)
    Console(highlight=False).print(table)


def _shown(outcome: Outcome) -> list[str]:
    """Return the first metric, and what there is of it by language for a model of several."""
    first = next(iter(outcome.after), "")
    if outcome.language is not None:
        return [first]
    return [first, *(name for name in outcome.after if name.startswith(f"{first}."))]
