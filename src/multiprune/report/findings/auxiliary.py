"""Which tasks help which: all tasks together against all but one, and against each alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from multiprune.report.findings.contender import Contender, mixing_of
from multiprune.report.findings.difference import differences_by_task
from multiprune.report.findings.model import of_size
from multiprune.report.records.frame import SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.findings.difference import Difference
    from multiprune.report.findings.example_draws import ExampleDraws
    from multiprune.report.findings.model import Model


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What it does to some tasks that others are learned with them, at the same size.

    Attributes:
        whole: the model of all tasks.
        left_out: the task that the others are without; None for models of each task alone.
        without: models without it, or of each task alone, as far as there are any.
        differences: all together less without, by split and by task or ``MEAN``.
    """

    whole: Model
    left_out: str | None
    without: Contender
    differences: Mapping[str, Mapping[str, Difference]] = field(default_factory=dict)

    @property
    def sides(self) -> tuple[Contender, Contender]:
        """All together, and without."""
        return self.whole.contender, self.without


def effects_of(models: Sequence[Model]) -> list[Effect]:
    """Find models of three or more tasks, and of the same without one, of equal size and mixing."""
    return [
        effect
        for whole in models
        if len(whole.tasks) > 2
        for effect in _effects(whole, [one for one in models if one.method == whole.method])
    ]


def with_effects(effect: Effect, draws: ExampleDraws) -> Effect:
    """Add how far scores of all tasks together are above those without."""
    differences = {split: differences_by_task(*effect.sides, split, draws) for split in SPLITS}
    return replace(effect, differences=differences)


def _effects(whole: Model, models: Sequence[Model]) -> list[Effect]:
    size, mixing = whole.contender.parameters, mixing_of(whole.runs[0])
    beside = [one for one in models if mixing_of(one.runs[0]) == mixing]
    effects = []
    for task in whole.tasks:
        rest = tuple(one for one in whole.tasks if one != task)
        if model := of_size([one for one in beside if one.tasks == rest], size):
            effects.append(Effect(whole=whole, left_out=task, without=model.contender))
    if not effects:
        return []
    alone = {
        task: model.runs
        for task in whole.tasks
        if (model := of_size([one for one in models if one.tasks == (task,)], size))
    }
    if alone:
        each = Contender(size, alone)
        effects.append(Effect(whole=whole, left_out=None, without=each))
    return effects
