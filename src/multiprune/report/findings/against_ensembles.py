"""Multitask models against the best ensembles of their size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from multiprune.budget.budget import CountBudget
from multiprune.report.findings.difference import differences_by_task
from multiprune.report.findings.ensemble import Ensemble, Request, best_ensemble
from multiprune.report.records.frame import SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.findings.contender import Contender
    from multiprune.report.findings.difference import Difference
    from multiprune.report.findings.example_draws import ExampleDraws
    from multiprune.report.findings.model import Model
    from multiprune.report.records.frame import Row


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The best ensemble of one method within the size of a multitask model, and that model.

    Attributes:
        ensemble: None where there is none; then ``reason`` says why.
        differences: multitask less the best ensemble, by split and by task or ``MEAN``.
    """

    method: str
    budget: int
    ensemble: Ensemble | None = None
    reason: str | None = None
    differences: Mapping[str, Mapping[str, Difference]] = field(default_factory=dict)

    @property
    def sides(self) -> tuple[Contender, Contender] | None:
        """The multitask model and the best ensemble, if there are both."""
        contenders = {} if self.ensemble is None else self.ensemble.contenders
        return (contenders["multitask"], contenders["best"]) if "multitask" in contenders else None


def comparisons_of(models: Sequence[Model], tasks: tuple[str, ...]) -> list[Comparison]:
    """Choose ensembles at the sizes of multitask models, or at even shares of those of tasks."""
    if len(tasks) == 1:
        return []
    comparisons = []
    for method in dict.fromkeys(model.method for model in models):
        own = [model for model in models if model.method == method]
        suite = [model for model in own if model.tasks == tasks]
        single = [model for model in own if len(model.tasks) == 1 and model.tasks[0] in tasks]
        if not single:
            continue
        sizes = {model.contender.parameters for model in suite}
        even = {len(tasks) * model.contender.parameters for model in single}
        rows = [run for model in (*suite, *single) for run in model.runs]
        comparisons += [_compare(method, rows, tasks, size) for size in sorted(sizes or even)]
    return comparisons


def with_differences(comparison: Comparison, draws: ExampleDraws) -> Comparison:
    """Add how far the multitask model is above the ensemble."""
    if comparison.ensemble is None:
        return comparison
    differences: dict[str, dict[str, Difference]] = {split: {} for split in SPLITS}
    if comparison.sides is not None:
        differences = {
            split: differences_by_task(*comparison.sides, split, draws) for split in SPLITS
        }
    return replace(comparison, differences=differences)


def _compare(method: str, rows: Sequence[Row], tasks: tuple[str, ...], budget: int) -> Comparison:
    try:
        alone = {row.tasks[0] for row in rows if len(row.tasks) == 1}
        if absent := sorted(set(tasks) - alone):
            raise ValueError(f"There is no single-task run of {', '.join(absent)}.")
        request = Request(CountBudget(count=budget, of=rows[0].budget.scope))
        ensemble = best_ensemble(method, rows, request)
    except ValueError as error:
        return Comparison(method=method, budget=budget, reason=str(error))
    return Comparison(method=method, budget=budget, ensemble=ensemble)
