"""Which tasks help which: all tasks together against all but one, and against each alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from multiprune.report.candidates import Candidate, mixing_of, of_size
from multiprune.report.compare import MEAN
from multiprune.report.page.intervals import interval_text
from multiprune.report.page.plots import heat_map, short
from multiprune.report.page.section import Figure, Section, Table, plural, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.candidates import Model
    from multiprune.report.compare import Difference
    from multiprune.report.study import Study

#: As many models are drawn.
DRAWN = 6


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What it does to some tasks that others are learned with them, at the same size.

    Attributes:
        whole: the model of all tasks.
        without_task: the task that the others are without; None for models of each task alone.
        without: models without it, or of each task alone, as far as there are any.
        differences: all together less without, by task or ``MEAN``.
    """

    whole: Model
    without_task: str | None
    without: Candidate
    differences: Mapping[str, Difference] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What is compared with the whole model."""
        return "alone" if self.without_task is None else f"without {self.without_task}"


def answer(study: Study) -> Section | None:
    """Show what leaving out each task does to the others."""
    effects = effects_of(study)
    if not effects or study.by_examples:
        return None
    by_model: dict[int, list[Effect]] = {}
    for effect in effects:
        by_model.setdefault(id(effect.whole), []).append(effect)
    drawn = [*by_model.values()][:DRAWN]
    found = [
        difference
        for effect in effects
        for task, difference in effect.differences.items()
        if task != MEAN
    ]
    return Section(
        name="helping",
        title="Which tasks help each other",
        answer=_headline(effects),
        text=[
            "Scores with all tasks together, less those without one of them (or of each task "
            "alone), of the same method, size and seed: positive where it helps.",
            *_not_trained(study, effects),
            *_trust(study, found),
        ],
        figures=_figures(study, drawn),
        tables=[_table(study, effects)],
    )


def effects_of(study: Study) -> list[Effect]:
    """Find models of three or more tasks, and of the same without one, of equal size and mixing."""
    found = []
    for whole in study.models:
        if len(whole.tasks) > 2:
            own = [model for model in study.models if model.method == whole.method]
            found += _effects(whole, own)
    differences = study.differences([(one.whole, one.without) for one in found])
    return [
        Effect(
            whole=one.whole, without_task=one.without_task, without=one.without, differences=by_task
        )
        for one, by_task in zip(found, differences, strict=True)
    ]


def _effects(whole: Model, models: Sequence[Model]) -> list[Effect]:
    size, mixing = whole.parameters, mixing_of(whole.first)
    beside = [model for model in models if mixing_of(model.first) == mixing]
    effects = []
    for task in whole.tasks:
        rest = tuple(other for other in whole.tasks if other != task)
        if model := of_size([other for other in beside if other.tasks == rest], size):
            effects.append(Effect(whole=whole, without_task=task, without=model))
    if not effects:
        return []
    alone = {
        task: model.all_runs
        for task in whole.tasks
        if (model := of_size([other for other in models if other.tasks == (task,)], size))
    }
    if alone:
        each = Candidate(size, alone)
        effects.append(Effect(whole=whole, without_task=None, without=each))
    return effects


def _headline(effects: Sequence[Effect]) -> str:
    means = [
        (effect.differences[MEAN], effect.without_task)
        for effect in effects
        if effect.without_task is not None and MEAN in effect.differences
    ]
    if not means:
        return ""
    most, task = max(means, key=lambda one: one[0].mean)
    least, other = min(means, key=lambda one: one[0].mean)
    if task == other:
        return f"With {task} the other tasks score {most} more."
    return f"{task} helps the others most ({most}), {other} least ({least})."


def _trust(study: Study, found: Sequence[Difference]) -> list[str]:
    if not found:
        return ["No two of these models have a seed in common."]
    return [
        f"Of {plural(len(found), 'difference')} on {study.split} data about {len(found) / 20:.1f} "
        "would have an interval of 95 % without 0 if none of them were real.",
        *interval_text(found),
    ]


def _not_trained(study: Study, effects: Sequence[Effect]) -> list[str]:
    """Name the models that one of their tasks was never left out of."""
    missing = []
    for model in {id(effect.whole): effect.whole for effect in effects}.values():
        without = {effect.without_task for effect in effects if effect.whole is model}
        if absent := [task for task in model.tasks if task not in without]:
            missing.append(f"{_label(study, model)}: {', '.join(absent)}")
    return [f"No run is without, at {'; '.join(missing)}."] if missing else []


def _table(study: Study, effects: Sequence[Effect]) -> Table:
    tasks = sorted({task for effect in effects for task in effect.whole.tasks})
    rows = (
        {
            "method": effect.whole.method,
            "kept": effect.whole.parameters,
            "together": ", ".join(effect.whole.tasks),
            "less": effect.name,
            "seeds": min((len(one.seeds) for one in effect.differences.values()), default=None),
            **{name: effect.differences.get(name) for name in (*tasks, MEAN)},
        }
        for effect in effects
    )
    return table("helping", f"All together - without one task, {study.split} scores", rows)


def _figures(study: Study, drawn: Sequence[Sequence[Effect]]) -> list[Figure]:
    """Draw a map for each model, all of one size and scale."""
    room = max(map(len, drawn)), max(len(own[0].whole.tasks) for own in drawn)
    values = [
        abs(difference.mean)
        for own in drawn
        for effect in own
        for task, difference in effect.differences.items()
        if task != MEAN
    ]
    highest = max(values, default=1.0)
    return [
        _figure(study, f"helping-{index}", own, room, highest) for index, own in enumerate(drawn)
    ]


def _figure(
    study: Study, name: str, effects: Sequence[Effect], room: tuple[int, int], highest: float
) -> Figure:
    model = effects[0].whole
    names = [effect.name for effect in effects]
    values = [
        [
            effect.differences[task].mean if task in effect.differences else None
            for task in model.tasks
        ]
        for effect in effects
    ]
    seen = [
        f"{task} {effect.differences[task].mean:+.3f} over {effect.name}"
        for effect in effects
        for task in model.tasks
        if task in effect.differences
    ]
    return Figure(
        name=name,
        caption=f"Scores with all tasks together, less those in rows: {_label(study, model)}.",
        alt=f"Heat map of differences: {'; '.join(seen)}.",
        draw=lambda: heat_map(
            names, model.tasks, values, digits=3, signed=True, highest=highest, room=room
        ),
        wide=room[1] > 4,
    )


def _label(study: Study, model: Model) -> str:
    method = f"{model.method}, " if len(study.methods) > 1 else ""
    return f"{method}{', '.join(model.tasks)} at {short(model.parameters)}"
