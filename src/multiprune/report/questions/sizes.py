"""Every size from one run, or a run for each: models of many sizes beside separate ones."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.report.candidates import mixture_of
from multiprune.report.compare import spread
from multiprune.report.page.plots import Line, ends, frontier, short
from multiprune.report.page.section import (
    Figure,
    Section,
    Table,
    plural,
    skipped_table,
    table,
)
from multiprune.runs.frame import Skipped
from multiprune.runs.size_scores import FRONTIER, read_size_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.report.candidates import Model
    from multiprune.report.compare import Spread
    from multiprune.report.study import Study
    from multiprune.runs.size_scores import OneSize, SizeScores

#: The larger of a pair of sizes is at most so many times the smaller.
APART = 1.2


@dataclass(frozen=True, kw_only=True)
class Point:
    """One size of a model of many.

    Attributes:
        parameters: of the largest seed, as those of other models.
        scores: by seed and task.
    """

    parameters: int
    scores: Mapping[int, Mapping[str, float]]

    @property
    def by_seed(self) -> dict[int, float]:
        """The mean over tasks by seed."""
        return {seed: statistics.fmean(tasks.values()) for seed, tasks in self.scores.items()}

    @property
    def mean(self) -> Spread:
        """The mean over tasks."""
        return spread(self.by_seed.values())


@dataclass(frozen=True, kw_only=True)
class SizePair:
    """Nearly the same size twice, with mean scores over the seeds that both have."""

    point: Point
    separate: Model
    seeds: tuple[int, ...]
    of_point: Spread
    of_separate: Spread

    @property
    def ratio(self) -> float | None:
        """The score of the point over that of the separate model; None if that is not above 0."""
        return self.of_point.mean / self.of_separate.mean if self.of_separate.mean > 0 else None


@dataclass(frozen=True, kw_only=True)
class Separate:
    """Separate models of one method, the smallest first, and which of them are in pairs."""

    method: str
    models: Sequence[Model]
    pairs: Sequence[SizePair]

    @property
    def ratio(self) -> float | None:
        """The mean ratio over the pairs that have one."""
        ratios = [pair.ratio for pair in self.pairs if pair.ratio is not None]
        return statistics.fmean(ratios) if ratios else None

    @property
    def seconds(self) -> float:
        """Wall time of training each model that is in a pair once."""
        return sum(pair.separate.wall_seconds for pair in self.pairs)


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


def answer(study: Study) -> Section | None:
    """Show models of many sizes beside separate ones, if there are such models."""
    if study.by_examples or not _many(study):
        return None
    found, skipped = many_sizes(study)
    return Section(
        name="sizes",
        title="Every size from one run, or a run for each?",
        answer=_headline(found),
        text=[
            "One run: a dynamic model, as multiprune frontier has evaluated it. A run each: models "
            "of one size, of the same tasks, encoder and number of steps.",
            f"Two sizes are a pair if each is the nearest to the other and within {APART:g} times; "
            "scores of a pair are over the seeds that both have.",
            *(text for one in found for text in _costs(one)),
        ]
        if found
        else ["No frontier.json can be used."],
        figures=[_figure(study, index, one) for index, one in enumerate(found)],
        tables=[
            _pairs(study, found),
            _cost(found),
            _sizes(study, found),
            skipped_table(
                "sizes-skipped", "Not used in this section, and why", skipped, of="run or file"
            ),
        ],
    )


def _many(study: Study) -> list[Model]:
    return [
        model
        for model in study.models
        if any((run.path / FRONTIER).exists() for run in model.all_runs)
    ]


def many_sizes(study: Study) -> tuple[list[ManySizes], list[Skipped]]:
    """Compare models of many sizes with the others."""
    many = _many(study)
    single = [model for model in study.models if model not in many]
    skipped: list[Skipped] = []
    found = [
        _beside(study, model, own, single, skipped)
        for model in many
        if (own := _of_one_kind(_read(model, skipped), skipped))
    ]
    return found, list(dict.fromkeys(skipped))


def _read(model: Model, skipped: list[Skipped]) -> list[SizeScores]:
    """Read the sizes of each run of a model."""
    read = []
    for run in model.all_runs:
        try:
            scores = read_size_scores(run)
        except (ValueError, OSError) as error:
            skipped.append(Skipped(run.path / FRONTIER, str(error)))
            continue
        if scores is None:
            reason = f"it has no {FRONTIER}, which multiprune frontier writes"
            skipped.append(Skipped(run.path, reason))
        else:
            read.append(scores)
    return read


def _of_one_kind(read: Sequence[SizeScores], skipped: list[Skipped]) -> list[SizeScores]:
    """Keep those of the split and the tasks that most have."""
    kinds = [(one.split, tuple(sorted(one.sizes[0].scores))) for one in read]
    most = max(counts, key=counts.__getitem__) if (counts := Counter(kinds)) else None
    for scores, (split, tasks) in zip(read, kinds, strict=True):
        if (split, tasks) != most:
            reason = f"it has {split} scores of {', '.join(tasks)}, but most of these runs others"
            skipped.append(Skipped(scores.run.path / FRONTIER, reason))
    return [scores for scores, kind in zip(read, kinds, strict=True) if kind == most]


def _beside(
    study: Study,
    model: Model,
    own: Sequence[SizeScores],
    single: Sequence[Model],
    skipped: list[Skipped],
) -> ManySizes:
    split, tasks = own[0].split, tuple(sorted(own[0].sizes[0].scores))
    alike = []
    for other in single:
        if other.tasks != model.tasks:
            continue
        if reason := _reason_against(study, other, model, tasks, split):
            skipped += [Skipped(run.path, reason) for run in other.all_runs]
        else:
            alike.append(other)
    points = _points(own)
    return ManySizes(
        model=model,
        split=split,
        tasks=tasks,
        points=points,
        separate=[
            Separate(method=method, models=sizes, pairs=_paired(study, sizes, points, split))
            for method, sizes in _by_method(alike).items()
        ],
        dense=next((one for one in alike if one.is_dense), None),
    )


def _reason_against(
    study: Study, other: Model, model: Model, tasks: Sequence[str], split: str
) -> str | None:
    """Return why a model of the same tasks does not stand beside one of many sizes."""
    steps, expected = ({run.record.steps for run in side.all_runs} for side in (other, model))
    if mixture_of(other.first) != mixture_of(model.first):
        return "its tasks are weighted or mixed in another way than those of the run of every size"
    if steps != expected:
        first, second = (", ".join(f"{n:,}" for n in sorted(side)) for side in (steps, expected))
        return f"runs like it took {first} steps, but those of every size {second}"
    if set(tasks) != set(study.scores.by_task(other, split)):
        return f"its {split} scores are not of the same tasks as those of every size"
    if not {run.seed for run in other.all_runs} & {run.seed for run in model.all_runs}:
        return "it has no seed in common with the run of every size"
    return None


def _points(own: Sequence[SizeScores]) -> list[Point]:
    """Gather the sizes that seeds were asked for."""
    by_asked: dict[float, dict[int, OneSize]] = {}
    for scores in own:
        for size in scores.sizes:
            by_asked.setdefault(size.asked, {})[scores.run.seed] = size
    points = [
        Point(
            parameters=max(size.kept for size in by_seed.values()),
            scores={seed: size.scores for seed, size in by_seed.items()},
        )
        for by_seed in by_asked.values()
    ]
    return sorted(points, key=lambda point: point.parameters)


def _by_method(alike: Sequence[Model]) -> dict[str, list[Model]]:
    """Group by method, the smallest first; a dense model stands beside the sizes of each.

    Dense models have no method of their own, unless there are no others.
    """
    dense = [model for model in alike if model.is_dense]
    methods = dict.fromkeys(model.method for model in alike if model not in dense)
    groups = {}
    for method in methods or dict.fromkeys(model.method for model in dense):
        sizes = [model for model in alike if model.method == method]
        if not any(model in dense for model in sizes):
            sizes += dense[:1]
        groups[method] = sorted(sizes, key=lambda model: model.parameters)
    return groups


def _paired(
    study: Study, models: Sequence[Model], points: Sequence[Point], split: str
) -> list[SizePair]:
    """Pair what is nearest to each other, not too far apart, and has a seed in common."""
    pairs = []
    for model in models:
        point = min(points, key=lambda point: _apart(point, model))
        nearest = min(models, key=lambda other: _apart(point, other))
        ours, theirs = point.by_seed, study.by_seed(model, split)
        seeds = tuple(sorted(ours.keys() & theirs.keys()))
        if nearest is model and _apart(point, model) <= APART and seeds:
            pairs.append(
                SizePair(
                    point=point,
                    separate=model,
                    seeds=seeds,
                    of_point=spread(ours[seed] for seed in seeds),
                    of_separate=spread(theirs[seed] for seed in seeds),
                )
            )
    return pairs


def _apart(point: Point, model: Model) -> float:
    small, large = sorted((point.parameters, model.parameters))
    return large / small


def _headline(found: Sequence[ManySizes]) -> str:
    for one in found:
        for each in one.separate:
            if each.ratio is not None:
                ratios = [pair.ratio for pair in each.pairs if pair.ratio is not None]
                return (
                    f"One run of {one.model.method} has {each.ratio:.3f} times the "
                    f"score of a run each of {each.method}, the mean over "
                    f"{plural(len(ratios), 'size')} ({min(ratios):.3f} to {max(ratios):.3f}), in "
                    f"{one.model.wall_seconds / each.seconds:.2f} times the time."
                )
    return ""


def _costs(one: ManySizes) -> list[str]:
    text = []
    if one.dense is not None:
        text.append(
            f"One run of {one.model.method} takes "
            f"{one.model.wall_seconds / one.dense.wall_seconds:.2f} times as long as a dense model."
        )
    if not any(each.pairs for each in one.separate):
        text.append(f"No separate size is a pair with one of {one.model.method}.")
    return text


def _figure(study: Study, index: int, one: ManySizes) -> Figure:
    points = [(point.parameters, point.mean) for point in one.points]
    lines = [Line(f"one run, {one.model.method}", 0, "-", points)]
    for color, each in enumerate(one.separate, 1):
        means = [
            (model.parameters, spread(study.by_seed(model, one.split).values()))
            for model in each.models
        ]
        lines.append(Line(f"a run each, {each.method}", color, "--", means))
    label = f"{one.split} score" + ", mean" * (len(one.tasks) > 1)
    return Figure(
        name=f"sizes-{index}",
        caption=f"{', '.join(one.tasks)}, on {one.split} data.",
        alt=f"Scores over kept parameters: {ends(lines, 'at', short)}.",
        draw=lambda: frontier(lines, study.dense, label),
    )


def _pairs(study: Study, found: Sequence[ManySizes]) -> Table:
    rows = (
        {
            "one run": one.model.method,
            "density": pair.point.parameters / study.dense,
            "score": pair.of_point,
            "a run each": each.method,
            "density each": pair.separate.parameters / study.dense,
            "score each": pair.of_separate,
            "ratio": pair.ratio,
            "seeds": len(pair.seeds),
        }
        for one in found
        for each in one.separate
        for pair in each.pairs
    )
    return table("sizes-pairs", "Nearly the same size, from one run and from a run each", rows)


def _cost(found: Sequence[ManySizes]) -> Table:
    rows = []
    for one in found:
        seconds = one.model.wall_seconds
        trained: list[tuple[str, str, int, float, float | None]] = [
            (one.model.method, "every size from one run", 1, seconds, None)
        ]
        if one.dense is not None:
            trained.append((one.dense.method, "dense alone", 1, one.dense.wall_seconds, None))
        trained += [
            (each.method, "a run for each size above", len(each.pairs), each.seconds, each.ratio)
            for each in one.separate
            if each.pairs
        ]
        rows += [
            {"method": method, "what is trained": what, "runs": runs, "wall s": wall}
            | {"one run, times this": seconds / wall, "ratio": ratio}
            for method, what, runs, wall, ratio in trained
        ]
    caption = (
        "What training costs, the mean over seeds; machines may differ between runs; ratio: the "
        "mean of those of scores above"
    )
    digits = {"wall s": 1, "one run, times this": 2}
    return table("sizes-cost", caption, rows, sortable=False, digits=digits)


def _sizes(study: Study, found: Sequence[ManySizes]) -> Table:
    tasks = sorted({task for one in found for task in one.tasks})
    rows = (
        {
            "method": one.model.method,
            "data": one.split,
            "kept": point.parameters,
            "density": point.parameters / study.dense,
            "seeds": len(point.scores),
            "mean": point.mean,
            **{
                task: spread(scores[task] for scores in point.scores.values())
                if task in one.tasks
                else None
                for task in tasks
            },
        }
        for one in found
        for point in one.points
    )
    return table("sizes", "Every size of one run", rows, fold=12)
