"""The sections of a report, in the order that a reader wants them."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from multiprune.budget.ledger import DENOMINATORS
from multiprune.report.page import blocks
from multiprune.report.page.blocks import Cell, Figure, Section, Table
from multiprune.report.page.plots import ranges
from multiprune.report.sections.auxiliary import auxiliary_section
from multiprune.report.sections.by_examples import by_examples_section
from multiprune.report.sections.by_language import by_language_section
from multiprune.report.sections.frontier import frontier_section
from multiprune.report.sections.kept import density_section, ledger_section
from multiprune.report.sections.ladders import ladder_section
from multiprune.report.sections.overlap import overlap_section
from multiprune.report.sections.transfer import transfer_section
from multiprune.report.sections.versus import allocation_section, versus_section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.findings.by_examples import ByExamples
    from multiprune.report.findings.overlap import Overlaps
    from multiprune.report.findings.overview import Overview
    from multiprune.report.records.frame import Row


def sections(overview: Overview, overlaps: Overlaps | None) -> list[Section]:
    """Return all sections; ``overlaps`` is None if models were not asked to be read."""
    return [
        _compared(overview),
        frontier_section(overview),
        *ladder_section(overview),
        *transfer_section(overview),
        versus_section(overview),
        allocation_section(overview),
        auxiliary_section(overview),
        *by_language_section(overview),
        ledger_section(overview),
        density_section(overview),
        overlap_section(overlaps),
        _wall_time(overview),
        runs_section(overview),
    ]


def sections_by_examples(overview: Overview, found: ByExamples) -> list[Section]:
    """Return the sections on runs that differ in their numbers of training examples."""
    return [
        _compared(overview),
        by_examples_section(overview, found),
        _wall_time(overview),
        runs_section(overview),
    ]


def _compared(overview: Overview) -> Section:
    rows = overview.all_rows
    facts = {
        "encoder": rows[0].encoder,
        "what is counted": _counted(overview),
        "methods": ", ".join(overview.methods),
        "seeds": ", ".join(map(str, sorted({row.record.seed for row in rows}))),
        "finished runs": f"{len(rows):,}",
        "left out": f"{len(overview.left_out):,}",
    }
    tables = [
        blocks.setting_table(facts),
        _tasks(overview),
    ]
    if overview.left_out:
        tables.append(blocks.left_out_table("left-out", "Runs left out", overview.left_out))
    text = []
    if overview.by_language is not None:
        text.append(
            f"{blocks.plural(len(overview.by_language.rows), 'run')} of one language each: in the "
            "section on those, and in the tables of wall time and of runs, only."
        )
    if overview.pretraining:
        text.append(
            f"{blocks.plural(len(overview.pretraining), 'run')} of masked language modelling only: "
            "in the section on sparse transfer, and in the tables of wall time and of runs, only."
        )
    shown = {overview.tasks, *_in_effects(overview)}
    multitask = {tuple(sorted(row.tasks)) for row in overview.rows if len(row.tasks) > 1}
    if others := multitask - shown:
        text.append(
            "Multitask runs of other tasks are in the tables of runs, of the ledger and of wall "
            f"time only: {'; '.join(sorted(', '.join(one) for one in others))}."
        )
    return Section(name="compared", title="What was compared", text=text, tables=tables)


def _in_effects(overview: Overview) -> set[tuple[str, ...]]:
    """Return the sets of tasks that are compared with one another."""
    return {one.whole.tasks for one in overview.effects} | {
        tuple(task for task in one.whole.tasks if task != one.left_out) for one in overview.effects
    }


def _counted(overview: Overview) -> str:
    parts = DENOMINATORS[overview.of]
    named = "" if parts == (overview.of,) else f" ({', '.join(parts)})"
    return f"{overview.of}{named}: {overview.dense:,} parameters in one dense model"


def _tasks(overview: Overview) -> Table:
    rows = []
    for task in sorted({task for row in overview.rows for task in row.tasks}):
        own = [row for row in overview.rows if task in row.tasks]
        examples = sorted({row.record.examples[task] for row in own if task in row.record.examples})
        rows.append(
            [
                blocks.text(task),
                blocks.text(own[0].metrics[task]),
                _from_to(examples),
                blocks.count(sum(len(row.tasks) == 1 for row in own)),
                blocks.count(sum(len(row.tasks) > 1 for row in own)),
            ]
        )
    columns = ["task", "metric", "training examples", "runs alone", "multitask runs"]
    return Table(name="tasks", caption="Tasks", columns=columns, rows=rows)


def _from_to(counts: Sequence[int]) -> Cell:
    if len(counts) < 2:
        return blocks.count(counts[0]) if counts else blocks.EMPTY
    return Cell(f"{counts[0]:,} to {counts[-1]:,}", counts[-1])


def _wall_time(overview: Overview) -> Section:
    groups: dict[tuple[str, str], list[Row]] = {}
    for model in overview.models:
        kind = "alone" if len(model.tasks) == 1 else "multitask"
        groups.setdefault((model.method, kind), []).extend(model.runs)
    for model in overview.by_language.models if overview.by_language is not None else ():
        groups.setdefault((model.method, "one language"), []).extend(model.runs)
    for run in overview.pretraining:
        groups.setdefault((run.record.method.name, "pretraining"), []).append(run)
    names = [f"{method}, {kind}" for method, kind in groups]
    seconds = [[run.record.wall_seconds for run in runs] for runs in groups.values()]
    medians = [
        f"{name}: median {statistics.median(one):,.0f} s"
        for name, one in zip(names, seconds, strict=True)
    ]
    figure = Figure(
        name="wall-time",
        caption="Seconds a run: from the shortest to the longest, and the median.",
        alt="; ".join(medians),
        draw=lambda: ranges(names, seconds, "seconds a run"),
    )
    hours = sum(row.record.wall_seconds for row in overview.all_rows) / 3600
    return Section(
        name="wall-time",
        title="Wall time",
        text=[f"All runs together took {hours:,.2f} hours. Machines may differ between runs."],
        figures=[figure],
        tables=[_wall_time_table(groups)],
    )


def _wall_time_table(groups: Mapping[tuple[str, str], Sequence[Row]]) -> Table:
    rows = []
    for (method, kind), runs in groups.items():
        seconds = [run.record.wall_seconds for run in runs]
        steps = [run.record.wall_seconds / max(1, run.record.steps) for run in runs]
        rows.append(
            [
                blocks.text(method),
                blocks.text(kind),
                blocks.count(len(runs)),
                blocks.number(sum(seconds) / 3600, 2),
                blocks.number(min(seconds), 1),
                blocks.number(statistics.median(seconds), 1),
                blocks.number(max(seconds), 1),
                blocks.number(statistics.median(steps), 4),
            ]
        )
    columns = [
        "method", "models", "runs", "hours", "shortest s", "median s", "longest s",
        "median s a step",
    ]  # fmt: skip
    return Table(name="wall-time", caption="Wall time", columns=columns, rows=rows)


def runs_section(overview: Overview) -> Section:
    """List every finished run with the command that made it."""
    of_languages = overview.by_language.models if overview.by_language is not None else ()
    models = [*overview.models, *of_languages]
    method = {run.path: model.method for model in models for run in model.runs}
    rows = []
    for row in overview.all_rows:
        tests = [row.test_score(task) for task in row.tasks]
        known = [one for one in tests if one is not None]
        rows.append(
            [
                blocks.text(str(row.path)),
                blocks.text(method.get(row.path, row.record.method.name)),
                blocks.text(
                    ", ".join(row.tasks)
                    + (f" in {row.record.language}" if row.record.language else "")
                ),
                blocks.count(row.record.seed),
                blocks.count(row.budget.asked),
                blocks.count(row.budget.kept),
                blocks.number(row.budget.kept / row.budget.dense, 4),
                blocks.number(statistics.fmean(map(row.validation_score, row.tasks)), 4),
                blocks.number(statistics.fmean(known) if len(known) == len(tests) else None, 4),
                blocks.number(row.record.wall_seconds, 0),
                blocks.text(row.command or ""),
            ]
        )
    columns = [
        "run", "method", "tasks", "seed", "asked", "kept", "density", "validation", "test",
        "wall s", "command",
    ]  # fmt: skip
    table = Table(name="runs", caption="Finished runs", columns=columns, rows=rows, copied=10)
    without = sum(row.command is None for row in overview.all_rows)
    text = ["The score is the mean over the run's tasks."]
    if without:
        text.append(
            f"Of {blocks.plural(without, 'run')} the command is not known: Hydra left no trace."
        )
    return Section(name="runs", title="Runs", text=text, tables=[table])
