"""The best ensembles as tables on the screen, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multiprune.message import printable
from multiprune.report.records.frame import SPLITS, Row

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from multiprune.report.findings.contender import Contender, Statistic
    from multiprune.report.findings.ensemble import Ensemble, Ensembles
    from multiprune.report.records.frame import LeftOut


def print_ensembles(ensembles: Ensembles) -> None:
    """Print, for each method, what each task gets and what stands beside it."""
    console = Console(highlight=False)
    for ensemble in ensembles.found:
        _print(console, ensemble)
    for method, reason in ensembles.refused.items():
        _say(console, f"{method}: {reason}")
    _say_left_out(console, ensembles.left_out)


def write_ensembles(ensembles: Ensembles, file: Path) -> None:
    """Write the same as JSON."""
    content = {
        "methods": [document(one) for one in ensembles.found],
        "refused": dict(ensembles.refused),
        "left_out": left_out_document(ensembles.left_out),
    }
    file.write_text(json.dumps(content, indent=2) + "\n")


def _print(console: Console, ensemble: Ensemble) -> None:
    share = ensemble.budget / ensemble.dense
    _say(
        console,
        f"{ensemble.method}: {len(ensemble.tasks)} tasks within {ensemble.budget:,} parameters "
        f"({ensemble.of}), {share:.4f} of one dense model of {ensemble.dense:,}.",
    )
    console.print(_choice(ensemble))
    console.print(_beside(ensemble, "validation"))
    if ensemble.contenders["best"].tasks_with(Row.test_score):
        console.print(_beside(ensemble, "test"))
    for name, reason in ensemble.refused.items():
        _say(console, f"No {name}: {reason}")
    _say_left_out(console, ensemble.left_out)
    console.print()


def _choice(ensemble: Ensemble) -> Table:
    """Return the sizes of the best ensemble."""
    best, splits = ensemble.contenders["best"], SPLITS.values()
    table = Table("task")
    for column in ("parameters", "seeds", *SPLITS):
        table.add_column(column, justify="right")
    for task in ensemble.tasks:
        scores = [_shown(best.score(task, one)) for one in splits]
        table.add_row(
            _plain_text(task), f"{best.sizes[task]:,}", str(len(best.runs[task])), *scores
        )
    if ensemble.shared:
        table.add_row("embeddings, once", f"{ensemble.shared:,}")
    table.add_section()
    means = [_shown(best.mean_score(one)) for one in splits]
    table.add_row("sum, mean", f"{best.parameters:,}", "", *means)
    return table


def _beside(ensemble: Ensemble, split: str) -> Table:
    """Return the scores of all contenders on one split, by task and on average."""
    score, contenders = SPLITS[split], ensemble.contenders.values()
    table = Table(split)
    for name in ensemble.contenders:
        table.add_column(name, justify="right")
    for task in ensemble.tasks:
        table.add_row(_plain_text(task), *(_shown(one.score(task, score)) for one in contenders))
    table.add_section()
    known = len(ensemble.contenders["best"].tasks_with(score))
    table.add_row(f"mean of {known}", *(_shown(one.mean_score(score)) for one in contenders))
    table.add_row("parameters", *(f"{one.parameters:,}" for one in contenders))
    return table


def document(ensemble: Ensemble) -> dict[str, Any]:
    """Return what JSON holds of one ensemble."""
    names = ("method", "of", "budget", "dense", "shared", "refused")
    return {name: getattr(ensemble, name) for name in names} | {
        "tasks": list(ensemble.tasks),
        "contenders": {name: _scores(one) for name, one in ensemble.contenders.items()},
        "left_out": left_out_document(ensemble.left_out),
    }


def _scores(contender: Contender) -> dict[str, Any]:
    tasks = {
        task: {
            "parameters": contender.sizes.get(task),
            **{split: _plain(contender.score(task, score)) for split, score in SPLITS.items()},
            "runs": [str(run.path) for run in contender.runs[task]],
        }
        for task in contender.runs
    }
    means = {split: _plain(contender.mean_score(score)) for split, score in SPLITS.items()}
    return {"parameters": contender.parameters, "mean": means, "tasks": tasks}


def _plain(statistic: Statistic | None) -> dict[str, Any] | None:
    return None if statistic is None else asdict(statistic)


def _shown(statistic: Statistic | None) -> str:
    # Three digits, so that four ways to share fit in 80 columns.
    if statistic is None:
        return ""
    spread = "" if statistic.deviation is None else f" ± {statistic.deviation:.3f}"
    return f"{statistic.mean:.3f}{spread}"


def left_out_document(runs: Iterable[LeftOut]) -> list[dict[str, str]]:
    """Return what JSON holds of runs that are not used."""
    return [{"path": str(one.path), "reason": one.reason} for one in runs]


def _say_left_out(console: Console, runs: Iterable[LeftOut]) -> None:
    for one in runs:
        _say(console, f"Left out: {one.path}: {one.reason}")


def _plain_text(text: str) -> str:
    return escape(printable(text))


def _say(console: Console, text: str) -> None:
    console.print(printable(text), soft_wrap=True, markup=False)
