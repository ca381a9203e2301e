"""Score specialized models of many sizes without writing them."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from multiprune.arguments import check_number, check_several
from multiprune.budget.budget import FractionBudget
from multiprune.models.encoder import Encoder
from multiprune.runs.atomic import atomic_file
from multiprune.runs.specialist_file import SPECIALISTS
from multiprune.specialize.calibration_set import calibration_set
from multiprune.specialize.recipe import METHODS
from multiprune.specialize.specialist import importance, specialized, validated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from multiprune.data.batches import EncodedTask
    from multiprune.export.shipped import ShippedModel
    from multiprune.specialize.recipe import Recipe
    from multiprune.specialize.request import Request


@dataclass
class _Found:
    """What is known so far, as it is written."""

    whole: dict[str, dict[str, float]] = field(default_factory=dict)
    specialists: list[dict[str, Any]] = field(default_factory=list)
    unseen: list[dict[str, Any]] = field(default_factory=list)
    masks: dict[int, dict[str, Mapping[str, Tensor]]] = field(default_factory=dict)
    dense: int = 0


def study(
    request: Request,
    recipe: Recipe,
    *,
    densities: Sequence[float],
    unseen: Mapping[str, str] | None = None,
    others: Mapping[str, Any] | None = None,
    validation_rows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Cut a model to every size, for each of its tasks, and measure; return what is written.

    Args:
        request: of what.
        recipe: how models are cut; its budget says only what is counted.
        densities: how much each specialist keeps of the model as it is.
        unseen: for a task, the name of another of the same kind, whose validation data are
            answered by the specialist of the first.
        others: the configurations of those.
        validation_rows: of each task at most; None for all.
        progress: is told how many of how many specialists have been measured.

    Raises:
        ValueError: if the model has no such task, or what is asked for cannot be.
        FileNotFoundError: if there is no finished run.
    """
    start, found = time.perf_counter(), _Found()
    unseen, others = unseen or {}, others or {}
    check_several("densities", densities)
    for position, density in enumerate(densities):
        check_number(f"densities[{position}]", density, above=0, at_most=1)
    if not densities:
        raise ValueError("`densities` is empty.")
    if missing := [name for name in unseen.values() if name not in others]:
        raise ValueError(
            f"`unseen` must name tasks that are configured, but {', '.join(missing)} is not: "
            f"task@others=[{','.join(missing)}]."
        )
    model, origin, tasks = request.opened()
    if unknown := [name for name in unseen if name not in tasks]:
        raise ValueError(
            f"`unseen` must name other data by `tasks`, which are {', '.join(tasks)}, but names "
            f"{', '.join(unknown)}."
        )
    encoder = Encoder(model.encoder, model.tokenizer)
    for number, name in enumerate(tasks):
        encoded = origin.encoded(name, encoder, request.mirror)
        other = None
        if (elsewhere := unseen.get(name)) is not None:
            other = origin.encoded(elsewhere, encoder, request.mirror, others=others)
            _check_alike(encoded, other)
        _of_task(model, encoded, other, recipe, densities, validation_rows, found)
        if progress is not None:
            progress((number + 1) * len(densities), len(tasks) * len(densities))
    return {
        "run": str(request.run),
        "method": recipe.method,
        "options": _options(recipe),
        "labels": recipe.labels,
        "examples": recipe.examples,
        "seed": recipe.seed,
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
    options = {name: getattr(recipe, name) for name in METHODS[recipe.method].options}
    return options | {"granularity": list(recipe.granularity)}


def _of_task(
    model: ShippedModel,
    encoded: EncodedTask,
    other: EncodedTask | None,
    recipe: Recipe,
    densities: Sequence[float],
    rows: int | None,
    found: _Found,
) -> None:
    name = encoded.name
    whole = model.only(name)
    found.whole[name] = validated(whole, encoded, rows=rows)
    whole_elsewhere = {} if other is None else validated(whole, other, head=name, rows=rows)
    examples = calibration_set(encoded, model, recipe)
    known = importance(whole, encoded.task, name, examples, recipe)
    for density in densities:
        sized = replace(recipe, budget=FractionBudget(fraction=density, of=recipe.budget.of))
        made = specialized(model, encoded.task, name, examples, sized, known=known)
        size = {"asked": made.budget.asked, "kept": made.budget.kept}
        metrics = validated(made.model, encoded, rows=rows)
        found.dense = made.budget.dense
        found.specialists.append({"task": name, **size, "metrics": metrics})
        found.masks.setdefault(size["asked"], {})[name] = made.masks
        if other is not None:
            metrics = validated(made.model, other, head=name, rows=rows)
            of = {"task": name, "data": other.name}
            found.unseen.append({**of, **size, "metrics": metrics, "whole": whole_elsewhere})


def _check_alike(encoded: EncodedTask, other: EncodedTask) -> None:
    meant, means = (one.task.output for one in (encoded, other))
    if meant.label_space != means.label_space:
        raise ValueError(
            f"Data that a specialist of {encoded.name} answers must have its classes, "
            f"{meant.meaning}, but {other.name} has {means.meaning}."
        )


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
