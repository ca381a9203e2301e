"""A model as a report sees it: runs of one method that differ in their seed only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.report.findings.contender import Contender, training_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.records.frame import Row


#: Sizes are equal that differ by less, since methods may keep a few parameters less than asked.
TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class Model:
    """Runs of one method that differ in their seed only."""

    method: str
    contender: Contender

    @property
    def runs(self) -> Sequence[Row]:
        """One run a seed."""
        return next(iter(self.contender.runs.values()))

    @property
    def tasks(self) -> tuple[str, ...]:
        """By name."""
        return tuple(self.contender.runs)

    @property
    def asked(self) -> int:
        """The parameters asked for."""
        return self.runs[0].budget.asked


def models_of(method: str, rows: Sequence[Row]) -> list[Model]:
    """Group the runs of a method, of which none repeats another, by tasks and size."""
    alike: dict[str, list[Row]] = {}
    for row in rows:
        alike.setdefault(training_of(row), []).append(row)
    models = []
    for runs in alike.values():
        runs.sort(key=lambda run: run.record.seed)
        # The budget must hold whichever seed is taken.
        size = max(run.ledger.kept_in(run.budget.scope) for run in runs)
        served = dict.fromkeys(sorted(runs[0].tasks), runs)
        models.append(Model(method=method, contender=Contender(size, served)))
    return sorted(models, key=lambda model: (model.tasks, model.contender.parameters))


def of_size(models: Sequence[Model], size: int) -> Model | None:
    """Return the model nearest to ``size``, if it is within ``TOLERANCE`` of it."""
    near = {abs(model.contender.parameters - size): model for model in models}
    return near[min(near)] if near and min(near) <= TOLERANCE * size else None
