"""Print evaluations as a table, or write them as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiprune.message import printable
from multiprune.runs.atomic import atomic_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from multiprune.evaluate import Evaluation


def print_evaluations(evaluations: Mapping[str, Evaluation]) -> None:
    """Print the scores of each task, and of what they are."""
    table = Table()
    table.add_column("task")
    table.add_column("metric")
    table.add_column("score", justify="right")
    for name, one in evaluations.items():
        for metric, score in one.scores.items():
            table.add_row(*(escape(printable(cell)) for cell in (name, metric, f"{score:.4f}")))
    Console(highlight=False).print(table)
    for name, one in evaluations.items():
        notes = {
            "without a label, skipped": one.unlabelled,
            "without a word, skipped": one.wordless,
            "truncated to the length of training": one.truncated,
        }
        said = "".join(f", {count:,} {note}" for note, count in notes.items() if count)
        print(printable(f"{name}: {one.examples:,} examples{said}"))


def evaluations_json(evaluations: Mapping[str, Evaluation]) -> str:
    """Return evaluations as a JSON object by task."""
    return json.dumps({name: asdict(one) for name, one in evaluations.items()}, indent=2) + "\n"


def write_evaluations(evaluations: Mapping[str, Evaluation], file: Path) -> None:
    """Write evaluations as JSON."""
    with atomic_file(file) as beside:
        beside.write_text(evaluations_json(evaluations))
