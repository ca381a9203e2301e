"""Specialists of many sizes, measured and not written: what a method is worth on one model."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from multiprune.budget.budget import FractionBudget
from multiprune.export.loading import load
from multiprune.models.encoder import Encoder
from multiprune.report.specialists.files import SPECIALISTS
from multiprune.runs.atomic import atomic_file
from multiprune.specialize.calibration_set import calibration_set
from multiprune.specialize.methods import METHODS
from multiprune.specialize.origin import read_origin
from multiprune.specialize.specialist import check_can_be_cut, importance, specialized, validated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from multiprune.data.batches import EncodedTask
    from multiprune.export.shipped import ShippedModel
    from multiprune.specialize.calibration_set import Draw
    from multiprune.specialize.origin import Origin
    from multiprune.specialize.specialist import Recipe


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is tried on one model.

    Attributes:
        run: a finished run of the tasks.
        tasks: of the run; all if there are none.
        densities: how much each specialist keeps of the model as it is.
        recipe: how models are pruned; its budget says only what is counted.
        draw: for what examples.
        unseen: for a task, the name of another of the same kind, whose validation data are
            answered by the specialist of the first.
        others: the configurations of those.
        validation_rows: of each task at most; None for all.
        mirror: local mirror of data to read instead of the run's.
        allow_targets: further packages of classes and functions that the run may name.
    """

    run: Path
    tasks: Sequence[str]
    densities: Sequence[float]
    recipe: Recipe
    draw: Draw
    unseen: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)
    validation_rows: int | None = None
    mirror: str | None = None
    allow_targets: Sequence[str] = ()


@dataclass
class _Found:
    """What is known so far, as it is written."""

    whole: dict[str, dict[str, float]] = field(default_factory=dict)
    specialists: list[dict[str, Any]] = field(default_factory=list)
    unseen: list[dict[str, Any]] = field(default_factory=list)
    masks: dict[int, dict[str, Mapping[str, Tensor]]] = field(default_factory=dict)
    dense: int = 0


def study(plan: Plan, *, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Cut a model to every size, for each of its tasks, and measure; return what is written.

    ``progress`` is told how many of how many specialists have been measured.

    Raises:
        ValueError: if the model has no such task, or what is asked for cannot be.
        FileNotFoundError: if there is no finished run.
    """
    start = time.perf_counter()
    model, origin = load(plan.run), read_origin(plan.run, allow_targets=plan.allow_targets)
    check_can_be_cut(model)
    tasks = list(plan.tasks) or list(model.meaning)
    _check(plan, tasks, model)
    found = _Found()
    for number, name in enumerate(tasks):
        _of_task(plan, model, origin, name, found)
        if progress is not None:
            progress((number + 1) * len(plan.densities), len(tasks) * len(plan.densities))
    recipe, draw = plan.recipe, plan.draw
    return {
        "run": str(plan.run),
        "method": recipe.method,
        "options": _options(recipe),
        "labels": draw.labels,
        "examples": draw.examples,
        "seed": draw.seed,
        "repair": recipe.repair,
        "of": recipe.budget.of,
        "dense": found.dense,
        "whole": found.whole,
        "specialists": found.specialists,
        "unseen": found.unseen,
        "overlap": {str(asked): _overlap(masks) for asked, masks in found.masks.items()},
        "seconds": time.perf_counter() - start,
    }


def write_study(folder: Path, content: Mapping[str, Any]) -> None:
    """Write what was found into ``folder``, or nothing."""
    with atomic_file(folder / SPECIALISTS) as beside:
        beside.write_text(json.dumps(content, indent=2) + "\n")


def intersection_over_union(first: Iterable[Tensor], second: Iterable[Tensor]) -> float:
    """Return how much two sets of units have in common, given as boolean masks by layer."""
    both = either = 0
    for one, other in zip(first, second, strict=True):
        both += int((one & other).sum())
        either += int((one | other).sum())
    return both / either if either else 1.0


def _options(recipe: Recipe) -> dict[str, Any]:
    """Return the options that the method has."""
    given = asdict(recipe.choice)
    options = {name: given[name] for name in METHODS[recipe.method].options}
    return options | {"granularity": list(recipe.granularity)}


def _check(plan: Plan, tasks: Sequence[str], model: ShippedModel) -> None:
    if unknown := [name for name in (*tasks, *plan.unseen) if name not in model.meaning]:
        raise ValueError(
            f"Specialists are of tasks of the model, which are {', '.join(model.meaning)}, but "
            f"{', '.join(unknown)} is asked for."
        )
    if missing := [name for name in plan.unseen.values() if name not in plan.others]:
        raise ValueError(
            f"`unseen` must name tasks that are configured, but {', '.join(missing)} is not: "
            f"+task@others=[{','.join(missing)}]."
        )
    if not plan.densities:
        raise ValueError("`densities` must name at least one, but is empty.")


def _of_task(plan: Plan, model: ShippedModel, origin: Origin, name: str, found: _Found) -> None:
    encoder = Encoder(model.encoder, model.tokenizer)
    encoded = origin.encoded(name, encoder, plan.mirror)
    other = _unseen(plan, origin, encoder, name, encoded)
    whole = model.only(name)
    rows = plan.validation_rows
    found.whole[name] = validated(whole, encoded, rows=rows)
    whole_elsewhere = {} if other is None else validated(whole, other, head=name, rows=rows)
    examples = calibration_set(encoded, model, plan.draw)
    known = importance(whole, encoded.task, name, examples, plan.recipe)
    for density in plan.densities:
        budget = FractionBudget(fraction=density, of=plan.recipe.budget.of)
        recipe = replace(plan.recipe, budget=budget)
        made = specialized(model, encoded.task, name, examples, recipe, known=known)
        size = {"asked": made.budget.asked, "kept": made.budget.kept}
        metrics = validated(made.model, encoded, rows=rows)
        found.dense = made.budget.dense
        found.specialists.append({"task": name, **size, "metrics": metrics})
        found.masks.setdefault(size["asked"], {})[name] = made.masks
        if other is not None:
            metrics = validated(made.model, other, head=name, rows=rows)
            of = {"task": name, "data": other.name}
            found.unseen.append({**of, **size, "metrics": metrics, "whole": whole_elsewhere})


def _unseen(
    plan: Plan, origin: Origin, encoder: Encoder, name: str, encoded: EncodedTask
) -> EncodedTask | None:
    if (elsewhere := plan.unseen.get(name)) is None:
        return None
    other = origin.encoded(elsewhere, encoder, plan.mirror, others=plan.others)
    meant, means = (one.task.output for one in (encoded, other))
    if meant.label_space != means.label_space:
        raise ValueError(
            f"Data that a specialist of {name} answers must have its classes, {meant.meaning}, but "
            f"{elsewhere} has {means.meaning}."
        )
    return other


def _overlap(masks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    tasks = list(masks)
    content: dict[str, Any] = {"tasks": tasks}
    for kind in ("neurons", "heads"):
        by_task = {
            task: [mask.bool() for path, mask in masks[task].items() if path.endswith(f".{kind}")]
            for task in tasks
        }
        shared = {
            frozenset(pair): intersection_over_union(*(by_task[task] for task in pair))
            for pair in itertools.combinations(tasks, 2)
        }
        content[kind] = [
            [shared.get(frozenset((first, second)), 1.0) for second in tasks] for first in tasks
        ]
    return content
