"""Every size from one run, or a run for each: models of many sizes beside separate ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.report.findings.contender import mixture_of
from multiprune.report.findings.ladder_pairs import Point, Separate, paired
from multiprune.report.records.frame import SPLITS, LeftOut
from multiprune.report.records.ladder_file import FRONTIER, read_ladder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.report.findings.model import Model
    from multiprune.report.records.ladder_file import Ladder, Rung


@dataclass(frozen=True, kw_only=True)
class ManySizes:
    """A model of many sizes, the smallest first, beside separate ones.

    Attributes:
        split: what the sizes were evaluated on.
        tasks: those with scores.
        dense: a separate model that is whole.
    """

    model: Model
    split: str
    tasks: tuple[str, ...]
    points: Sequence[Point]
    separate: Sequence[Separate]
    dense: Model | None


@dataclass(frozen=True)
class Ladders:
    """All that is known of models of many sizes; what is not used here, and why."""

    found: Sequence[ManySizes]
    left_out: Sequence[LeftOut]


def ladders(models: Sequence[Model]) -> Ladders | None:
    """Compare models of many sizes with the others; None if no run has ``frontier.json``."""
    many = [one for one in models if any((run.path / FRONTIER).exists() for run in one.runs)]
    if not many:
        return None
    single = [one for one in models if one not in many]
    left_out: list[LeftOut] = []
    found = [
        _many_sizes(model, own, single, left_out)
        for model in many
        if (own := _of_one_kind(_read(model, left_out), left_out))
    ]
    return Ladders(found, list(dict.fromkeys(left_out)))


def _read(model: Model, left_out: list[LeftOut]) -> list[Ladder]:
    """Read the sizes of each run of a model."""
    read = []
    for run in model.runs:
        try:
            ladder = read_ladder(run)
        except (ValueError, OSError) as error:
            left_out.append(LeftOut(run.path / FRONTIER, str(error)))
            continue
        if ladder is None:
            reason = f"it has no {FRONTIER}, which multiprune frontier writes"
            left_out.append(LeftOut(run.path, reason))
        else:
            read.append(ladder)
    return read


def _of_one_kind(read: Sequence[Ladder], left_out: list[LeftOut]) -> list[Ladder]:
    """Keep those of the split and the tasks that most have."""
    kinds = [(one.split, tuple(sorted(one.rungs[0].scores))) for one in read]
    most = max(counts, key=counts.__getitem__) if (counts := Counter(kinds)) else None
    for ladder, kind in zip(read, kinds, strict=True):
        if kind != most:
            split, tasks = kind
            reason = f"it has {split} scores of {', '.join(tasks)}, but most of these runs others"
            left_out.append(LeftOut(ladder.run.path / FRONTIER, reason))
    return [ladder for ladder, kind in zip(read, kinds, strict=True) if kind == most]


def _many_sizes(
    model: Model, own: Sequence[Ladder], single: Sequence[Model], left_out: list[LeftOut]
) -> ManySizes:
    split, tasks = own[0].split, tuple(sorted(own[0].rungs[0].scores))
    alike = []
    for one in single:
        if one.tasks != model.tasks:
            continue
        if reason := _reason_against(one, model, tasks, split):
            left_out += [LeftOut(run.path, reason) for run in one.runs]
        else:
            alike.append(one)
    points = _points(own)
    return ManySizes(
        model=model,
        split=split,
        tasks=tasks,
        points=points,
        separate=[
            Separate(method=method, models=sizes, pairs=paired(sizes, points, tasks, split))
            for method, sizes in _by_method(alike).items()
        ],
        dense=next(filter(_is_whole, alike), None),
    )


def _reason_against(one: Model, model: Model, tasks: Sequence[str], split: str) -> str | None:
    """Return why a model of the same tasks does not stand beside one of many sizes."""
    steps, expected = ({run.record.steps for run in side.runs} for side in (one, model))
    if mixture_of(one.runs[0]) != mixture_of(model.runs[0]):
        return "its tasks are weighted or mixed in another way than those of the run of every size"
    if steps != expected:
        first, second = (", ".join(f"{n:,}" for n in sorted(side)) for side in (steps, expected))
        return f"runs like it took {first} steps, but those of every size {second}"
    if set(tasks) != set(one.contender.tasks_with(SPLITS[split])):
        return f"its {split} scores are not of the same tasks as those of every size"
    if not {run.record.seed for run in one.runs} & {run.record.seed for run in model.runs}:
        return "it has no seed in common with the run of every size"
    return None


def _points(own: Sequence[Ladder]) -> list[Point]:
    """Gather the sizes that seeds were asked for."""
    by_asked: dict[float, dict[int, Rung]] = {}
    for ladder in own:
        for rung in ladder.rungs:
            by_asked.setdefault(rung.asked, {})[ladder.run.record.seed] = rung
    points = [
        Point(
            parameters=max(rung.kept for rung in by_seed.values()),
            scores={seed: rung.scores for seed, rung in by_seed.items()},
        )
        for by_seed in by_asked.values()
    ]
    return sorted(points, key=lambda point: point.parameters)


def _by_method(alike: Sequence[Model]) -> dict[str, list[Model]]:
    """Group by method, the smallest first; a whole model stands beside the sizes of each.

    Dense models have no method of their own, unless there are no others.
    """
    whole = [one for one in alike if _is_whole(one)]
    methods = dict.fromkeys(one.method for one in alike if one not in whole)
    groups = {}
    for method in methods or dict.fromkeys(one.method for one in whole):
        sizes = [one for one in alike if one.method == method]
        if not any(one in whole for one in sizes):
            sizes += whole[:1]
        groups[method] = sorted(sizes, key=lambda one: one.contender.parameters)
    return groups


def _is_whole(model: Model) -> bool:
    return model.contender.parameters == model.runs[0].budget.dense
