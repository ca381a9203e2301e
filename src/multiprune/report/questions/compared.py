"""What was compared: encoder, budget, tasks, and what was skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.page.section import Section, Table, facts_table, plural, skipped_table, table
from multiprune.runs.budget_outcome import SCOPES

if TYPE_CHECKING:
    from multiprune.report.study import Study


def answer(study: Study) -> Section:
    """Show the setting, the tasks, and the runs that are skipped."""
    runs = study.all_runs
    parts = SCOPES[study.scope]
    counted = "" if parts == (study.scope,) else f" ({', '.join(parts)})"
    facts = {
        "encoder": runs[0].encoder,
        "budget counts": f"{study.scope}{counted}: {study.dense:,} parameters in one dense model",
        "methods": "; ".join(study.methods),
        "seeds": ", ".join(map(str, sorted({run.seed for run in runs}))),
        "finished runs": f"{len(runs):,}",
        "skipped": f"{len(study.skipped):,}",
    }
    return Section(
        name="compared",
        title="What was compared",
        text=_apart(study),
        tables=[
            facts_table("compared", facts),
            _tasks(study),
            skipped_table("skipped", "Skipped runs", study.skipped),
        ],
    )


def _apart(study: Study) -> list[str]:
    """Name the runs that are in some sections only."""
    text = []
    if study.of_language:
        text.append(
            f"{plural(len(study.of_language), 'run')} of one language: in the section on those, "
            "and in the table of runs, only."
        )
    if study.pretraining:
        text.append(
            f"{plural(len(study.pretraining), 'run')} of masked language modelling: in the section "
            "on sparse transfer, and in the table of runs, only."
        )
    # Those of the suite, and what a section on helping tasks compares.
    shown = {study.tasks, *(tuple(t for t in study.tasks if t != task) for task in study.tasks)}
    multitask = {tuple(sorted(run.tasks)) for run in study.runs if len(run.tasks) > 1}
    if others := multitask - shown:
        named = "; ".join(sorted(", ".join(tasks) for tasks in others))
        text.append(f"Multitask runs of other tasks: {named}.")
    return text


def _tasks(study: Study) -> Table:
    rows = []
    for task in sorted({task for run in study.runs for task in run.tasks}):
        own = [run for run in study.runs if task in run.tasks]
        examples = sorted({run.record.examples[task] for run in own if task in run.record.examples})
        numbers: object = examples[0] if len(examples) == 1 else None
        if len(examples) > 1:
            numbers = f"{examples[0]:,} to {examples[-1]:,}"
        alone = sum(len(run.tasks) == 1 for run in own)
        rows.append(
            {
                "task": task,
                "metric": own[0].metrics[task],
                "training examples": numbers,
                "runs alone": alone,
                "multitask runs": len(own) - alone,
            }
        )
    return table("tasks", "Tasks", rows)
