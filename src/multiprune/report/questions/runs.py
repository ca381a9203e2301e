"""Every finished run, how long it took, and the command that made it."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from multiprune.report.page.plots import ranges
from multiprune.report.page.section import Figure, Section, Table, plural, table
from multiprune.runs.frame import SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.study import Study
    from multiprune.runs.frame import FinishedRun


def answer(study: Study) -> Section:
    """Show wall time by method, and list all runs."""
    groups = _groups(study)
    table = runs_table(study)
    without = sum(run.command is None for run in study.all_runs)
    hours = sum(run.record.wall_seconds for run in study.all_runs) / 3600
    missing = f" The command of {plural(without, 'run')} is not known." * bool(without)
    return Section(
        name="runs",
        title="Runs",
        answer=f"{plural(len(study.all_runs), 'run')} took {hours:,.2f} hours.",
        leads=False,
        text=[f"Machines may differ between runs.{missing}"],
        figures=[_figure(groups)],
        tables=[_wall_time(groups), table],
    )


def runs_table(study: Study) -> Table:
    """Return a row for each finished run."""
    method = {run.path: model.method for model in study.models for run in model.all_runs}
    rows = []
    for run in study.all_runs:
        language = f" in {run.record.language}" if run.record.language else ""
        rows.append(
            {
                "run": str(run.path),
                "command": run.command or "",
                "method": method.get(run.path, run.record.method.name),
                "tasks": ", ".join(run.tasks) + language,
                "seed": run.seed,
                "asked": run.budget.asked,
                "kept": run.budget.kept,
                "density": run.budget.density,
                **{
                    split: _mean([run.score(task, split) for task in run.tasks]) for split in SPLITS
                },
                "wall s": run.record.wall_seconds,
            }
        )
    digits = {"density": 4, "validation": 4, "test": 4, "wall s": 0}
    caption = "Finished runs; scores are means over their tasks"
    return table("runs", caption, rows, fold=len(rows), command="command", digits=digits)


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return statistics.fmean(known) if len(known) == len(scores) else None


def _groups(study: Study) -> dict[tuple[str, str], list[FinishedRun]]:
    groups: dict[tuple[str, str], list[FinishedRun]] = {}
    for model in study.models:
        kind = "alone" if len(model.tasks) == 1 else "multitask"
        groups.setdefault((model.method, kind), []).extend(model.all_runs)
    for kind, runs in (("one language", study.of_language), ("pretraining", study.pretraining)):
        for run in runs:
            groups.setdefault((run.record.method.name, kind), []).append(run)
    return groups


def _figure(groups: Mapping[tuple[str, str], Sequence[FinishedRun]]) -> Figure:
    names = [f"{method}, {kind}" for method, kind in groups]
    seconds = [[run.record.wall_seconds for run in runs] for runs in groups.values()]
    medians = [
        f"{name}: median {statistics.median(own):,.0f} s"
        for name, own in zip(names, seconds, strict=True)
    ]
    return Figure(
        name="wall-time",
        caption="Seconds a run: from the shortest to the longest, and the median.",
        alt="; ".join(medians),
        draw=lambda: ranges(names, seconds, "seconds a run"),
    )


def _wall_time(groups: Mapping[tuple[str, str], Sequence[FinishedRun]]) -> Table:
    rows = []
    for (method, kind), runs in groups.items():
        seconds = [run.record.wall_seconds for run in runs]
        steps = [run.record.wall_seconds / max(1, run.record.steps) for run in runs]
        rows.append(
            {
                "method": method,
                "models": kind,
                "runs": len(runs),
                "hours": sum(seconds) / 3600,
                "shortest s": min(seconds),
                "median s": statistics.median(seconds),
                "longest s": max(seconds),
                "median s a step": statistics.median(steps),
            }
        )
    digits = {"hours": 2, "shortest s": 1, "median s": 1, "longest s": 1, "median s a step": 4}
    return table("wall-time", "Wall time", rows, digits=digits)
