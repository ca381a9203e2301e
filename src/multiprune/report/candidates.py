"""Models and ways to serve tasks: runs that differ in their seed only, grouped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from multiprune.runs.frame import Skipped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.runs.frame import FinishedRun

#: Sizes are equal that differ by less, since methods may keep a few parameters less than asked.
TOLERANCE = 0.01


@dataclass(frozen=True)
class Candidate:
    """One way to serve some tasks within a budget.

    Attributes:
        parameters: what counts against the budget.
        runs: for each task, the runs that serve it, one a seed; a multitask run serves all.
        sizes: for each task, the parameters of its model; empty for a multitask model.
    """

    parameters: int
    runs: Mapping[str, Sequence[FinishedRun]]
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def seeds(self) -> int:
        """The number of seeds of the task that has the fewest."""
        return min(map(len, self.runs.values()))


@dataclass(frozen=True)
class Model(Candidate):
    """Runs of one method, of the same tasks and size, that differ in their seed only."""

    method: str = ""

    @property
    def all_runs(self) -> Sequence[FinishedRun]:
        """One run a seed."""
        return next(iter(self.runs.values()))

    @property
    def first(self) -> FinishedRun:
        """The run of the first seed."""
        return self.all_runs[0]

    @property
    def tasks(self) -> tuple[str, ...]:
        """By name."""
        return tuple(self.runs)

    @property
    def asked(self) -> int:
        """The parameters asked for."""
        return self.first.budget.asked

    @property
    def is_dense(self) -> bool:
        """Whether nothing is pruned of what the budget counts."""
        return self.parameters == self.first.budget.dense

    @property
    def wall_seconds(self) -> float:
        """Seconds that a run takes, the mean over seeds."""
        return sum(run.record.wall_seconds for run in self.all_runs) / len(self.all_runs)


def models_of(method: str, runs: Sequence[FinishedRun]) -> list[Model]:
    """Group the runs of a method, of which none repeats another, by tasks and size."""
    alike: dict[str, list[FinishedRun]] = {}
    for run in runs:
        alike.setdefault(training_of(run), []).append(run)
    models = []
    for group in alike.values():
        group.sort(key=lambda run: run.seed)
        # The budget must hold whichever seed is taken.
        size = max(run.kept_in(run.budget.scope) for run in group)
        models.append(Model(size, dict.fromkeys(sorted(group[0].tasks), group), method=method))
    return sorted(models, key=lambda model: (model.tasks, model.parameters))


def of_size(models: Sequence[Model], size: int) -> Model | None:
    """Return the model nearest to ``size``, if it is within ``TOLERANCE`` of it."""
    near = min(models, key=lambda model: abs(model.parameters - size), default=None)
    return near if near and abs(near.parameters - size) <= TOLERANCE * size else None


def training_of(run: FinishedRun) -> str:
    """Return what is the same in runs that differ in their seed only, of one method."""
    return repr([run.budget.asked, mixture_of(run)])


def mixture_of(run: FinishedRun) -> str:
    """Return the tasks of a run and, of several, how they are weighted and mixed."""
    same: list[object] = [sorted(run.tasks)]
    if len(run.tasks) > 1:
        weights = {task: run.record.tasks[task].loss_weight for task in run.tasks}
        same += [sorted(weights.items()), mixing_of(run)]
    return repr(same)


def mixing_of(run: FinishedRun) -> list[tuple[str, object]]:
    """Return the settings by which the tasks of a multitask run are mixed."""
    return sorted(
        (key, value) for key, value in run.record.settings.items() if key.startswith("data.mixing.")
    )


def one_a_seed(runs: Sequence[FinishedRun]) -> tuple[list[FinishedRun], list[Skipped]]:
    """Keep the last of runs that repeat each other, by path."""
    last = {(training_of(run), run.seed): run for run in runs}
    repeated = [(run, last[training_of(run), run.seed]) for run in runs]
    skipped = [
        Skipped(run.path, f"repeated by {kept.path}") for run, kept in repeated if kept is not run
    ]
    return list(last.values()), skipped
