"""Print the best ensembles within a budget as tables, or write them as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiprune.message import printable
from multiprune.report.compare import MEAN, Spread
from multiprune.report.page.format import cell, records
from multiprune.report.page.section import frame
from multiprune.runs.frame import SPLITS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from multiprune.report.ensembles import Ensemble, Ensembles
    from multiprune.report.scores import Scores
    from multiprune.runs.frame import Skipped


def print_ensembles(ensembles: Ensembles) -> None:
    """Print, for each method, the size of each task and the candidates it is compared with."""
    console = Console(highlight=False)
    for ensemble in ensembles.found:
        share = ensemble.budget / ensemble.dense
        _say(
            console,
            f"{ensemble.method}: {len(ensemble.tasks)} tasks within {ensemble.budget:,} parameters "
            f"({ensemble.of}), {share:.4f} of one dense model of {ensemble.dense:,}.",
        )
        console.print(_shown(sizes_frame(ensembles.scores, ensemble)))
        for split in SPLITS:
            scores = scores_frame(ensembles.scores, ensemble, split)
            if scores["best"].notna().any():
                console.print(_shown(scores))
        for name, reason in ensemble.refused.items():
            _say(console, f"No {name}: {reason}")
        _say(console, "± is half of the range over seeds.")
        _say_skipped(console, ensemble.skipped)
        console.print()
    for method, reason in ensembles.refused.items():
        _say(console, f"{method}: {reason}")
    _say_skipped(console, ensembles.skipped)


def write_ensembles(ensembles: Ensembles, file: Path) -> None:
    """Write the same as JSON."""
    content = {
        "methods": [_document(ensembles.scores, one) for one in ensembles.found],
        "refused": dict(ensembles.refused),
        "skipped": _skipped(ensembles.skipped),
    }
    file.write_text(json.dumps(content, indent=2) + "\n")


def sizes_frame(scores: Scores, ensemble: Ensemble) -> pd.DataFrame:
    """Return the sizes of the best ensemble, a row a task and one for all."""
    best = ensemble.candidates["best"]
    rows: list[dict[str, Any]] = [
        {"task": task, "parameters": best.sizes[task], "seeds": len(best.runs[task])}
        for task in ensemble.tasks
    ]
    if ensemble.shared:
        rows.append({"task": "embeddings, once", "parameters": ensemble.shared})
    rows.append({"task": "sum, mean", "parameters": best.parameters})
    for row in rows:
        name = MEAN if row["task"] == "sum, mean" else row["task"]
        row |= {split: scores.spreads(best, split).get(name) for split in SPLITS}
    return frame(rows)


def scores_frame(scores: Scores, ensemble: Ensemble, split: str) -> pd.DataFrame:
    """Return the scores of all candidates on one split, by task and on average."""
    found = {name: scores.spreads(one, split) for name, one in ensemble.candidates.items()}
    rows: list[dict[str, Any]] = [
        {split: task} | {name: by_task.get(task) for name, by_task in found.items()}
        for task in (*ensemble.tasks, MEAN)
    ]
    sizes = {name: one.parameters for name, one in ensemble.candidates.items()}
    return frame([*rows, {split: "parameters", **sizes}])


def _document(scores: Scores, ensemble: Ensemble) -> dict[str, Any]:
    names = ("method", "of", "budget", "dense", "shared", "refused")
    return {name: getattr(ensemble, name) for name in names} | {
        "sizes": records(sizes_frame(scores, ensemble)),
        "runs": {
            name: {task: [str(run.path) for run in runs] for task, runs in one.runs.items()}
            for name, one in ensemble.candidates.items()
        },
        **{split: records(scores_frame(scores, ensemble, split)) for split in SPLITS},
        "skipped": _skipped(ensemble.skipped),
    }


def _skipped(skipped: Sequence[Skipped]) -> list[dict[str, str]]:
    return [{"path": str(one.path), "reason": one.reason} for one in skipped]


def _shown(values: pd.DataFrame) -> Table:
    table = Table(escape(values.columns[0]))
    for column in values.columns[1:]:
        table.add_column(escape(column), justify="right")
    for row in values.itertuples(index=False, name=None):
        table.add_row(*(escape(printable(_text(value))) for value in row))
    return table


def _text(value: Any) -> str:
    # A range would not fit in 80 columns.
    if isinstance(value, Spread) and value.low is not None and value.high is not None:
        spread = f" ± {(value.high - value.low) / 2:.3f}" if value.seeds > 1 else ""
        return f"{value.mean:.3f}{spread}"
    return cell(value).text


def _say_skipped(console: Console, skipped: Sequence[Skipped]) -> None:
    for one in skipped:
        _say(console, f"Skipped: {one.path}: {one.reason}")


def _say(console: Console, text: str) -> None:
    console.print(printable(text), soft_wrap=True, markup=False)
