"""The sections on multitask against the best ensemble, and on how that shares the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.report.findings.difference import MEAN
from multiprune.report.page import blocks
from multiprune.report.page.blocks import Figure, Section, Table
from multiprune.report.page.interval_text import interval_text
from multiprune.report.page.plots import forest, heat_map, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.findings.against_ensembles import Comparison
    from multiprune.report.findings.contender import Contender
    from multiprune.report.findings.difference import Difference
    from multiprune.report.findings.ensemble import Ensemble
    from multiprune.report.findings.overview import Overview

_CONTENDERS = {
    "multitask": "multitask",
    "best": "best ensemble",
    "uniform": "uniform",
    "proportional": "proportional",
}


def versus_section(overview: Overview) -> Section:
    """Show multitask beside ensembles at each budget, and the paired difference."""
    found = _with_ensemble(overview)
    compared = [
        (one, one.differences[overview.split][MEAN])
        for one, _ in found
        if MEAN in one.differences.get(overview.split, {})
    ]
    return Section(
        name="versus",
        title="Multitask against the best ensemble",
        text=_text(overview, [difference for _, difference in compared]) if found else [_NOTHING],
        figures=[_forest(overview, compared)] if compared else [],
        tables=[
            one
            for one in (_scores(overview), _differences(overview), _missing(overview))
            if one.rows
        ],
    )


_NOTHING = (
    "Nothing to compare: this takes models of each task alone and of all tasks together, of one "
    "method, where the smallest of each task fit the size of one multitask model together."
)


def allocation_section(overview: Overview) -> Section:
    """Show which share of each budget the best ensemble gives to each task."""
    found = _with_ensemble(overview)
    if not found:
        text = ["No ensemble was chosen, so that there is no budget to share out."]
        return Section(name="allocation", title="Who gets how much", text=text)
    rows = [
        [
            blocks.text(one.method),
            blocks.count(one.budget),
            blocks.count(ensemble.contenders["best"].parameters),
            *(blocks.count(ensemble.contenders["best"].sizes[task]) for task in overview.tasks),
        ]
        for one, ensemble in found
    ]
    return Section(
        name="allocation",
        title="Who gets how much",
        text=[
            "The sizes that the best ensemble has chosen among those trained, exactly, on "
            "validation scores. Shares are of the budget; what no task could use is left."
        ],
        figures=[
            _shares(overview, method) for method in dict.fromkeys(one.method for one, _ in found)
        ],
        tables=[
            Table(
                name="allocation",
                caption="Parameters by task in the best ensemble",
                columns=["method", "budget", "used", *overview.tasks],
                rows=rows,
            )
        ],
    )


def _with_ensemble(overview: Overview) -> list[tuple[Comparison, Ensemble]]:
    return [(one, one.ensemble) for one in overview.comparisons if one.ensemble is not None]


def _text(overview: Overview, differences: Sequence[Difference]) -> list[str]:
    text = [
        "At the size of each multitask model: the best choice of one single-task model for each "
        f"task within that size, chosen on validation scores and shown on {overview.split} scores."
    ]
    if overview.split == "validation":
        text.append(
            "These are the scores that the choice was made on, so that ensembles look better here "
            "than they are: no run has labelled test data for all tasks."
        )
    if not differences:
        return [
            *text,
            "No multitask model has a seed in common with its ensemble, or there is none.",
        ]
    return [
        *text,
        "Differences are multitask less best ensemble, paired by seed.",
        *interval_text(differences),
    ]


def _forest(overview: Overview, compared: Sequence[tuple[Comparison, Difference]]) -> Figure:
    several = len({one.method for one, _ in compared}) > 1
    names = [
        f"{one.method}, {short(one.budget)}" if several else short(one.budget)
        for one, _ in compared
    ]
    seen = [
        f"{difference.mean:+.3f} at {name}"
        for name, (_, difference) in zip(names, compared, strict=True)
    ]
    return Figure(
        name="versus",
        caption=f"Multitask less best ensemble by budget: mean {overview.split} score over tasks.",
        alt=f"Differences by budget: {'; '.join(seen)}.",
        draw=lambda: forest(names, [difference for _, difference in compared]),
    )


def _scores(overview: Overview) -> Table:
    rows = []
    for one, ensemble in _with_ensemble(overview):
        contenders: list[Contender | None] = [ensemble.contenders.get(name) for name in _CONTENDERS]
        rows.append(
            [
                blocks.text(one.method),
                blocks.count(one.budget),
                blocks.number(one.budget / overview.dense),
                *(
                    blocks.EMPTY if it is None else blocks.statistic(it.mean_score(overview.score))
                    for it in contenders
                ),
                blocks.difference(one.differences.get(overview.split, {}).get(MEAN)),
            ]
        )
    return Table(
        name="versus",
        caption=f"Mean {overview.split} score over tasks within each budget",
        columns=["method", "budget", "of dense", *_CONTENDERS.values(), "difference"],
        rows=rows,
    )


def _differences(overview: Overview) -> Table:
    rows = [
        [
            blocks.text(one.method),
            blocks.count(one.budget),
            blocks.text(split),
            blocks.count(len(by_task[MEAN].seeds)),
            *(blocks.difference(by_task.get(name)) for name in (MEAN, *overview.tasks)),
        ]
        for one in overview.comparisons
        for split, by_task in one.differences.items()
        if MEAN in by_task
    ]
    return Table(
        name="differences",
        caption="Multitask less best ensemble by task; means are over tasks that have the score",
        columns=["method", "budget", "split", "seeds", MEAN, *overview.tasks],
        rows=rows,
    )


def _missing(overview: Overview) -> Table:
    rows = []
    for one in overview.comparisons:
        reasons = {"any ensemble": one.reason} if one.reason else {}
        reasons |= dict(one.ensemble.refused) if one.ensemble is not None else {}
        reasons |= _not_over_examples(one)
        rows += [
            [
                blocks.text(one.method),
                blocks.count(one.budget),
                blocks.text(name),
                blocks.text(reason),
            ]
            for name, reason in reasons.items()
        ]
    return Table(
        name="missing",
        caption="What is missing, and why",
        columns=["method", "budget", "missing", "reason"],
        rows=rows,
        folded=len(rows) > 6,
    )


def _not_over_examples(comparison: Comparison) -> dict[str, str]:
    return {
        f"{split} interval over examples": by_task[MEAN].reason or ""
        for split, by_task in comparison.differences.items()
        if MEAN in by_task and not by_task[MEAN].examples
    }


def _shares(overview: Overview, method: str) -> Figure:
    own = [(one, it) for one, it in _with_ensemble(overview) if one.method == method]
    values: list[list[float | None]] = [
        [100 * it.contenders["best"].sizes[task] / one.budget for one, it in own]
        for task in overview.tasks
    ]
    budgets = [short(one.budget) for one, _ in own]
    index = overview.methods.index(method)
    largest = [
        f"{max(overview.tasks, key=lambda task: it.contenders['best'].sizes[task])} gets most at "
        f"{short(one.budget)}"
        for one, it in own
    ]
    return Figure(
        name=f"allocation-{index}",
        caption=f"{method}: percent of the budget for each task, by budget.",
        alt=f"Heat map of shares by task and budget: {'; '.join(largest)}.",
        draw=lambda: heat_map(overview.tasks, budgets, values, digits=0),
        wide=len(own) > 4,
    )
