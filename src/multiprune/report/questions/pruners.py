"""Which pruner scores what at each size: against the dense model, and against each other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from multiprune.report.compare import MEAN, Spread, spread
from multiprune.report.page.intervals import interval_text
from multiprune.report.page.plots import Level, Line, ends, frontier, short
from multiprune.report.page.section import Figure, Section, Table, joined, plural, slug, table
from multiprune.runs.folder import MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from multiprune.report.candidates import Model
    from multiprune.report.compare import Difference
    from multiprune.report.study import Study

BENCHMARK = "benchmark.json"


@dataclass(frozen=True)
class Scored:
    """A model, its mean score on validation and on shown data, and what it takes to run it.

    Attributes:
        share: the score over that of the dense model, paired by seed where both have it.
        bytes: of the files that the run has written, if it has.
        milliseconds: of a forward pass, as ``multiprune benchmark`` has measured it.
    """

    model: Model
    chosen_by: float
    mean: Spread
    share: Spread | None
    bytes: int | None
    milliseconds: float | None


def answer(study: Study) -> Section | None:
    """Show all models of the suite, and of each of its tasks alone."""
    models = [
        model
        for model in study.models
        if model.tasks == study.tasks or (len(model.tasks) == 1 and model.tasks[0] in study.tasks)
    ]
    if not models or study.by_examples:
        return None
    suites = {model.tasks for model in models}
    dense = {tasks: found for tasks in suites if (found := _dense(study, models, tasks))}
    scored = [one for model in models if (one := _scored(study, model, dense)) is not None]
    if not scored:
        return None
    compared = _against_best(study, scored)
    differences = [difference for *_, difference in compared]
    return Section(
        name="pruners",
        title="Which pruner at which size",
        answer=headline(study, scored),
        text=[
            f"Scores on {study.split} data, of {plural(len(study.tasks), 'task')}; brackets are "
            "from the lowest to the highest seed.",
            *(interval_text(differences) if differences else ()),
        ],
        figures=_figures(study, scored, dense),
        tables=[_scores(study, scored), _differences(study, compared), _pareto(study, scored)],
    )


def headline(study: Study, scored: Sequence[Scored]) -> str:
    """Say what the best pruner keeps of the dense score at the smallest size that several have."""
    pruned = [one for one in scored if not one.model.is_dense and one.model.tasks == study.tasks]
    if not pruned:
        whole = [one for one in scored if one.model.tasks == study.tasks]
        best = max(whole, key=lambda one: one.chosen_by, default=None)
        return f"{best.model.method} scores {best.mean}; nothing is pruned." if best else ""
    by_size = _by_size(pruned)
    _, size = min(by_size, key=lambda key: (-len(by_size[key]), key[1]))
    best, *others = sorted(by_size[study.tasks, size], key=lambda one: -one.chosen_by)
    seeds = plural(best.model.seeds, "seed")
    beside = joined([f"{one.model.method} {_kept(one)}" for one in others[:3]])
    beside = f"; {beside}" if beside else ""
    at = f"{100 * size / study.dense:.3g} % of the {study.scope} parameters"
    verb = "keeps" if best.share is not None else "scores"
    of = " of the dense score" if best.share is not None else ""
    return f"{best.model.method} {verb} {_kept(best)}{of} at {at}, {seeds}{beside}."


def _kept(one: Scored) -> str:
    if one.share is None:
        return str(one.mean)
    low, high = one.share.low, one.share.high
    ends = ""
    if low is not None and high is not None and low < high:
        ends = f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{100 * one.share.mean:.1f} %{ends}"


def _dense(study: Study, models: Sequence[Model], tasks: tuple[str, ...]) -> Model | None:
    """Return the dense model of some tasks with the best validation score."""
    dense = [model for model in models if model.is_dense and model.tasks == tasks]
    return max(dense, key=lambda model: _validation(study, model), default=None)


def _validation(study: Study, model: Model) -> float:
    mean = study.mean(model, "validation")
    return mean.mean if mean is not None else float("-inf")


def _scored(study: Study, model: Model, dense: Mapping[tuple[str, ...], Model]) -> Scored | None:
    mean, whole = study.mean(model), dense.get(model.tasks)
    if mean is None:
        return None
    share = None if whole is None or model is whole else _share(study, model, whole)
    sizes = [_bytes(run.path) for run in model.all_runs]
    found = [_milliseconds(run.path) for run in model.all_runs]
    times = [one for one in found if one is not None]
    return Scored(
        model,
        _validation(study, model),
        mean,
        share,
        max(sizes) or None,
        sum(times) / len(times) if times else None,
    )


def _share(study: Study, model: Model, dense: Model) -> Spread | None:
    own, whole = study.by_seed(model), study.by_seed(dense)
    if not own or not whole:
        return None
    usual = sum(whole.values()) / len(whole)
    if usual <= 0:
        return None
    return spread(score / whole.get(seed, usual) for seed, score in own.items())


def _by_size(scored: Sequence[Scored]) -> dict[tuple[tuple[str, ...], int], list[Scored]]:
    """Group models by their tasks and the budget that they were asked for."""
    by_size: dict[tuple[tuple[str, ...], int], list[Scored]] = {}
    for one in scored:
        by_size.setdefault((one.model.tasks, one.model.asked), []).append(one)
    return {key: by_size[key] for key in sorted(by_size)}


def _against_best(
    study: Study, scored: Sequence[Scored]
) -> list[tuple[int, Scored, Scored, Difference]]:
    """Compare the best model of each size, by its validation score, with the others."""
    pairs = []
    for (_, size), alike in _by_size(scored).items():
        best, *others = sorted(alike, key=lambda one: -one.chosen_by)
        pairs += [(size, best, other) for other in others]
    found = study.differences([(best.model, other.model) for _, best, other in pairs])
    return [
        (*pair, difference[MEAN])
        for pair, difference in zip(pairs, found, strict=True)
        if MEAN in difference
    ]


def _figures(
    study: Study, scored: Sequence[Scored], dense: Mapping[tuple[str, ...], Model]
) -> list[Figure]:
    figures = []
    several = len(study.tasks) > 1
    both = len({len(one.model.tasks) for one in scored}) > 1
    for task in (MEAN, *study.tasks) if several else study.tasks:
        kinds = [("together", "-", study.tasks)] if several else []
        kinds += [("alone", ":", (task,))] if task != MEAN else []
        lines = [
            line
            for color, method in enumerate(study.methods)
            for kind, style, tasks in kinds
            if (
                line := Line(
                    f"{method}, {kind}" if both else method,
                    color,
                    style,
                    _points(study, scored, method, tasks, task, dense.get(tasks)),
                )
            ).points
        ]
        levels = [
            Level(f"dense, {kind}" if both else "dense", found.mean)
            for kind, _, tasks in kinds
            if tasks in dense and (found := study.spreads(dense[tasks]).get(task)) is not None
        ]
        if lines:
            figures.append(_figure(study, task, lines, levels))
    return figures


def _points(
    study: Study,
    scored: Sequence[Scored],
    method: str,
    tasks: tuple[str, ...],
    task: str,
    dense: Model | None,
) -> list[tuple[int, Spread]]:
    """Return the scores of a method by size, but for the dense model that has a line of its own."""
    models = [one.model for one in scored if one.model is not dense]
    own = [model for model in models if (model.method, model.tasks) == (method, tasks)]
    found = [(model.parameters, study.spreads(model).get(task)) for model in own]
    return [(size, score) for size, score in found if score is not None]


def _figure(study: Study, task: str, lines: Sequence[Line], levels: Sequence[Level]) -> Figure:
    name = "pruners" if task == MEAN else f"pruners-{study.tasks.index(task)}-{slug(task)}"
    label = f"{study.split} score, {task}"
    dense = "; dashed: dense" if levels else ""
    wide = task == MEAN or len(study.tasks) == 1
    return Figure(
        name=name,
        caption=f"{label}{dense}.",
        alt=f"Scores over kept parameters: {ends(lines, 'at', short)}.",
        draw=lambda: frontier(lines, study.dense, label, levels=levels, wide=wide),
        wide=wide,
    )


def _scores(study: Study, scored: Sequence[Scored]) -> Table:
    tasks = study.tasks if len(study.tasks) > 1 else ()
    rows = []
    for one in scored:
        spreads = study.spreads(one.model)
        rows.append(
            {
                "method": one.model.method,
                "tasks": _tasks(study, one.model),
                "density": one.model.parameters / study.dense,
                "kept": one.model.parameters,
                "seeds": one.model.seeds,
                MEAN: one.mean,
                **({"of dense": one.share} if any(other.share for other in scored) else {}),
                **{task: spreads.get(task) for task in tasks},
            }
        )
    return table("pruners", f"{study.split.capitalize()} scores", rows, fold=40)


def _tasks(study: Study, model: Model) -> str:
    return "together" if model.tasks == study.tasks and len(model.tasks) > 1 else model.tasks[0]


def _differences(study: Study, compared: Sequence[tuple[int, Scored, Scored, Difference]]) -> Table:
    rows = (
        {
            "tasks": _tasks(study, best.model),
            "asked density": size / study.dense,
            "best": best.model.method,
            "other": other.model.method,
            "best - other": difference,
            "p": difference.p,
            "seeds": len(difference.seeds),
        }
        for size, best, other, difference in compared
    )
    caption = "The best of each size, by validation score, against the others, paired by seed"
    return table("pruners-paired", caption, rows)


def _pareto(study: Study, scored: Sequence[Scored]) -> Table:
    """Show which models no other is better than in score and size, bytes, or time."""
    suite = [one for one in scored if one.model.tasks == study.tasks]
    rows: list[dict[str, Any]] = []
    for one in suite if len(suite) > 1 else ():
        measures = {name: value for name, value in _measures(one).items() if value is not None}
        front = [
            name for name in measures if not any(_dominates(other, one, name) for other in suite)
        ]
        rows.append(
            {"method": one.model.method, **measures, MEAN: one.mean}
            | {"on the Pareto front of": ", ".join(front)}
        )
    caption = "Score against size and time: no other model is better in both"
    return table("pareto", caption, rows, digits={"milliseconds": 2})


def _measures(one: Scored) -> dict[str, Any]:
    return {
        "parameters": one.model.parameters,
        "bytes": one.bytes,
        "milliseconds": one.milliseconds,
    }


def _dominates(other: Scored, one: Scored, name: str) -> bool:
    theirs, own = _measures(other)[name], _measures(one)[name]
    if theirs is None or theirs > own or other.mean.mean < one.mean.mean:
        return False
    return bool(theirs < own or other.mean.mean > one.mean.mean)


def _bytes(run: Path) -> int:
    return sum(file.stat().st_size for file in (run / MODEL).glob("*.safetensors"))


def _milliseconds(run: Path) -> float | None:
    """Return the latency of a run's model at the first size and backend that was measured."""
    try:
        content = json.loads((run / BENCHMARK).read_text())
        return next(
            float(one["median_ms"])
            for one in content["latencies"]
            # By the path that it was asked for by; its dense model is called `dense of` that.
            if "median_ms" in one
            and not one["model"].startswith("dense of ")
            and PurePath(one["model"]).name == run.name
        )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        StopIteration,
        RecursionError,
    ):
        return None
