"""One budget for all tasks: one multitask model, or the best ensemble of single-task models?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from multiprune.budget.budget import CountBudget
from multiprune.report.compare import MEAN
from multiprune.report.ensembles import Ensemble, Request, best_ensemble
from multiprune.report.page.intervals import interval_text
from multiprune.report.page.plots import Line, ends, forest, frontier, heat_map, short
from multiprune.report.page.section import Figure, Section, Table, plural, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.candidates import Candidate
    from multiprune.report.compare import Difference
    from multiprune.report.study import Study
    from multiprune.runs.frame import FinishedRun

#: What shares a budget, and how it is called on a page.
CANDIDATES = {
    "multitask": "multitask",
    "best": "best ensemble",
    "uniform": "uniform split",
    "proportional": "proportional split",
}


@dataclass(frozen=True, kw_only=True)
class Budgeted:
    """The best ensemble of one method within the size of a multitask model, and that model.

    Attributes:
        ensemble: None where there is none; then ``reason`` says why.
        differences: multitask less the best ensemble, by task or ``MEAN``.
    """

    method: str
    budget: int
    ensemble: Ensemble | None = None
    reason: str | None = None
    differences: Mapping[str, Difference] = field(default_factory=dict)

    @property
    def candidates(self) -> Mapping[str, Candidate]:
        """What shares the budget, by the names of ``CANDIDATES``."""
        return {} if self.ensemble is None else self.ensemble.candidates

    @property
    def sides(self) -> tuple[Candidate, Candidate] | None:
        """The multitask model and the best ensemble, if there are both."""
        found = self.candidates
        return (found["multitask"], found["best"]) if "multitask" in found else None


def answer(study: Study) -> Section | None:
    """Show multitask beside ensembles at each budget, and how the best ensemble shares it."""
    if len(study.tasks) == 1 or study.by_examples:
        return None
    found = budgeted(study)
    shown = [one for one in found if one.ensemble is not None]
    if not shown:
        return None
    compared = [one for one in shown if MEAN in one.differences]
    differences = [one.differences[MEAN] for one in compared]
    return Section(
        name="multitask",
        title="Multitask against the best ensemble",
        answer=_headline(study, compared),
        text=[
            "The best ensemble is the choice of one single-task model a task that fits the "
            "budget together and has the best validation score.",
            *_chosen_and_shown(study),
            *(interval_text(differences) if differences else ()),
        ],
        figures=[
            *_curves(study, shown),
            *([_forest(study, compared)] if compared else ()),
            *_shares(study, shown),
        ],
        tables=[
            _scores(study, shown),
            _by_task(study, compared),
            _allocation(study, shown),
            _missing(found),
        ],
    )


def budgeted(study: Study) -> list[Budgeted]:
    """Choose ensembles at the sizes of multitask models, or at even shares of those of tasks."""
    found = []
    for method in study.methods:
        suite = study.multitask(method)
        single = [model for task in study.tasks for model in study.single(method, task)]
        if not single:
            continue
        sizes = {model.parameters for model in suite}
        even = {len(study.tasks) * model.parameters for model in single}
        runs = [run for model in (*suite, *single) for run in model.all_runs]
        found += [_within(study, method, runs, size) for size in sorted(sizes or even)]
    pairs = [one.sides for one in found if one.sides is not None]
    differences = iter(study.differences(pairs))
    return [
        Budgeted(
            method=one.method, budget=one.budget, ensemble=one.ensemble, reason=one.reason,
            differences=next(differences) if one.sides is not None else {},
        )
        for one in found
    ]  # fmt: skip


def _within(study: Study, method: str, runs: Sequence[FinishedRun], budget: int) -> Budgeted:
    alone = {run.tasks[0] for run in runs if len(run.tasks) == 1}
    if absent := sorted(set(study.tasks) - alone):
        reason = f"There is no single-task run of {', '.join(absent)}."
        return Budgeted(method=method, budget=budget, reason=reason)
    try:
        request = Request(CountBudget(count=budget, of=study.scope))
        return Budgeted(method=method, budget=budget, ensemble=best_ensemble(method, runs, request))
    except ValueError as error:
        return Budgeted(method=method, budget=budget, reason=str(error))


def _headline(study: Study, compared: Sequence[Budgeted]) -> str:
    if not compared:
        return ""
    above = sum(one.differences[MEAN].mean > 0 for one in compared)
    clear = [one.differences[MEAN] for one in compared if one.differences[MEAN].is_clear]
    of = plural(len(compared), "budget")
    words = f"Multitask scores more than the best ensemble at {above} of {of}"
    smallest = min(compared, key=lambda one: one.budget)
    words += f" ({smallest.differences[MEAN]} at {100 * smallest.budget / study.dense:.3g} %)"
    better = sum(one.mean > 0 for one in clear)
    if not clear:
        return f"{words}; no interval is without 0."
    return f"{words}; by intervals without 0, more at {better} and less at {len(clear) - better}."


def _chosen_and_shown(study: Study) -> list[str]:
    if study.split == "test":
        return []
    return [
        "Scores are those on validation data, on which ensembles were chosen, too: they look "
        "better here than they are."
    ]


def _curves(study: Study, shown: Sequence[Budgeted]) -> list[Figure]:
    lines = []
    for color, method in enumerate(study.methods):
        own = [one for one in shown if one.method == method]
        ensembles = {one.candidates["best"].parameters: one.candidates["best"] for one in own}
        kinds: tuple[tuple[str, str, Sequence[Candidate]], ...] = (
            ("multitask", "-", study.multitask(method)),
            ("best ensemble", "--", [ensembles[size] for size in sorted(ensembles)]),
        )
        for kind, style, served in kinds:
            points = [(one.parameters, study.mean(one)) for one in served]
            known = [(size, mean) for size, mean in points if mean is not None]
            if known:
                lines.append(Line(f"{method}, {kind}", color, style, known))
    label = f"{study.split} score, mean"
    return [
        Figure(
            name="multitask",
            caption=f"Mean over {len(study.tasks)} tasks, on {study.split} data.",
            alt=f"Mean scores over kept parameters: {ends(lines, 'at', short)}.",
            draw=lambda: frontier(lines, study.dense, label),
        )
    ] * bool(lines)


def _forest(study: Study, compared: Sequence[Budgeted]) -> Figure:
    several = len({one.method for one in compared}) > 1
    names = [
        f"{one.method}, {short(one.budget)}" if several else short(one.budget) for one in compared
    ]
    differences = [one.differences[MEAN] for one in compared]
    seen = [f"{one.mean:+.3f} at {name}" for name, one in zip(names, differences, strict=True)]
    label = "← best ensemble is better · multitask is better →"
    return Figure(
        name="multitask-differences",
        caption=f"Multitask - best ensemble by budget: mean {study.split} score over tasks.",
        alt=f"Differences by budget: {'; '.join(seen)}.",
        draw=lambda: forest(names, differences, label),
    )


def _shares(study: Study, shown: Sequence[Budgeted]) -> list[Figure]:
    """Draw the share of each task in each budget, a map for each method, of one size and scale."""
    by_method: dict[str, list[Budgeted]] = {}
    for one in shown:
        by_method.setdefault(one.method, []).append(one)
    room = (len(study.tasks), max(map(len, by_method.values())))
    return [
        _share(study, f"allocation-{index}", method, own, room)
        for index, (method, own) in enumerate(by_method.items())
    ]


def _share(
    study: Study, name: str, method: str, own: Sequence[Budgeted], room: tuple[int, int]
) -> Figure:
    sizes = [one.candidates["best"].sizes for one in own]
    values: list[list[float | None]] = [
        [100 * size[task] / one.budget for size, one in zip(sizes, own, strict=True)]
        for task in study.tasks
    ]
    budgets = [short(one.budget) for one in own]
    most = [
        f"{max(study.tasks, key=lambda task: size[task])} gets most at {budget}"
        for size, budget in zip(sizes, budgets, strict=True)
    ]
    return Figure(
        name=name,
        caption=f"{method}: percent of the budget that the best ensemble gives each task.",
        alt=f"Heat map of shares by task and budget: {'; '.join(most)}.",
        draw=lambda: heat_map(study.tasks, budgets, values, digits=0, highest=100, room=room),
        wide=room[1] > 4,
    )


def _scores(study: Study, shown: Sequence[Budgeted]) -> Table:
    rows = (
        {
            "method": one.method,
            "budget": one.budget,
            "of dense": one.budget / study.dense,
            **{
                called: study.mean(one.candidates[name]) if name in one.candidates else None
                for name, called in CANDIDATES.items()
            },
            "multitask - best ensemble": one.differences.get(MEAN),
        }
        for one in shown
    )
    return table("multitask", f"Mean {study.split} score over tasks within each budget", rows)


def _by_task(study: Study, compared: Sequence[Budgeted]) -> Table:
    rows = (
        {
            "method": one.method,
            "budget": one.budget,
            "seeds": len(one.differences[MEAN].seeds),
            "p": one.differences[MEAN].p,
            **{name: one.differences.get(name) for name in (MEAN, *study.tasks)},
        }
        for one in compared
    )
    caption = f"Multitask - best ensemble by task, {study.split} scores"
    return table("multitask-tasks", caption, rows)


def _allocation(study: Study, shown: Sequence[Budgeted]) -> Table:
    rows = (
        {
            "method": one.method,
            "budget": one.budget,
            "used": one.candidates["best"].parameters,
            **{task: one.candidates["best"].sizes[task] for task in study.tasks},
        }
        for one in shown
    )
    caption = "Who gets the budget: parameters by task in the best ensemble"
    return table("allocation", caption, rows)


def _missing(found: Sequence[Budgeted]) -> Table:
    rows = []
    for one in found:
        refused = {} if one.ensemble is None else one.ensemble.refused
        reasons = {"any ensemble": one.reason} if one.reason else {}
        reasons |= {CANDIDATES[name]: reason for name, reason in refused.items()}
        rows += [
            {"method": one.method, "budget": one.budget, "missing": name, "reason": reason}
            for name, reason in reasons.items()
        ]
    return table("missing", "Missing, and why", rows, fold=6)
