"""From a multitask model to folders, one a task or one a task and language, of smaller models."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from multiprune.export.card import Measured, write_card
from multiprune.export.checkpoint import check_is_new, model_folder
from multiprune.export.exported_folder import exported_folder
from multiprune.export.loading import load
from multiprune.models.encoder import Encoder
from multiprune.specialize.calibration_set import calibration_set
from multiprune.specialize.origin import read_origin
from multiprune.specialize.specialist import check_can_be_cut, specialized, validated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from multiprune.data.batches import EncodedTask
    from multiprune.export.shipped import ShippedModel
    from multiprune.runs.budget_outcome import BudgetOutcome
    from multiprune.specialize.calibration_set import Draw
    from multiprune.specialize.origin import Origin
    from multiprune.specialize.specialist import Recipe, Specialist

log = logging.getLogger(__name__)

#: Written into the folder of each model.
OUTCOME = "specialized.json"


@dataclass(frozen=True, kw_only=True)
class Manner:
    """In which way models are made.

    Attributes:
        recipe: how they are pruned.
        draw: for what examples.
        evaluate: whether scores on validation data are measured, before and after.
    """

    recipe: Recipe
    draw: Draw
    evaluate: bool = True


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for.

    Attributes:
        run: a finished run, or a folder exported from one.
        tasks: of the model; all of them if there are none.
        out: folder of the folders that are written: ``<task>``, or ``<task>.<language>``.
        manner: in which way they are made.
        languages: make a model for each of these and each task, all that there are training rows
            in if there are none; None for one model a task, of all its languages.
        data_of: the finished run that says what tasks read, if ``run`` is exported.
        mirror: local mirror of data to read instead of the run's.
        allow_targets: further packages of classes and functions that the run may name.
    """

    run: Path
    tasks: Sequence[str]
    out: Path
    manner: Manner
    languages: Sequence[str] | None = None
    data_of: Path | None = None
    mirror: str | None = None
    allow_targets: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one task.

    Attributes:
        language: that the model is for; None for all of the task, or a task that has none.
        folder: what was written.
        labels: how often each class was the answer to an example, if the task has classes.
        budget: how many parameters were asked for, and kept.
        before: metrics of the whole model on validation data; empty if not measured.
        after: the same of the smaller one.
        seconds: from the encoded data to the model that is cut.
    """

    task: str
    language: str | None
    folder: Path
    labels: dict[str, int]
    budget: BudgetOutcome
    before: dict[str, float]
    after: dict[str, float]
    seconds: float
    warning: str | None

    @property
    def validation(self) -> dict[str, dict[str, float]]:
        """The metrics of the smaller model, by task; empty if not measured."""
        return {self.task: self.after} if self.after else {}


def specialize(request: Request) -> Iterator[Outcome]:
    """Prune for one task after the other, write each model, and say what came of it.

    Raises:
        ValueError: if the model has no such task, a task no training rows in a language, or what is
            asked for cannot be.
        FileExistsError: if a folder exists that would be written.
        FileNotFoundError: if there is no finished run.
    """
    model_folder(request.run)  # refuses several models in one folder
    model = load(request.run)
    check_can_be_cut(model)
    source = request.run if request.data_of is None else request.data_of
    origin = read_origin(source, allow_targets=request.allow_targets)
    tasks = list(request.tasks) or list(model.meaning)
    if unknown := [name for name in tasks if name not in model.meaning]:
        raise ValueError(
            f"`--task` must name tasks of the model, which are {', '.join(model.meaning)}, but "
            f"names {', '.join(unknown)}."
        )
    encoder = Encoder(model.encoder, model.tokenizer)
    wanted = [
        (name, language)
        for name in tasks
        for language in _languages(request, origin, name, encoder)
    ]
    folders = [request.out / (f"{one}.{language}" if language else one) for one, language in wanted]
    for folder in folders:
        check_is_within(folder, request.out)
        check_is_new(folder)
    for (name, language), folder in zip(wanted, folders, strict=True):
        encoded = origin.encoded(name, encoder, request.mirror, language=language)
        of = {"run": str(request.run)}
        yield make(model, encoded, request.manner, folder=folder, of=of, language=language)


def check_is_within(folder: Path, out: Path) -> None:
    """Refuse a folder that the name of a task, which may be somebody else's, has moved elsewhere.

    Raises:
        ValueError: if ``folder`` does not lie in ``out`` itself.
    """
    if folder.parent != out or folder.name == "..":
        raise ValueError(
            f"A model is written into {out}, but its task's name leads to {folder}: rename it."
        )


def _languages(
    request: Request, origin: Origin, name: str, encoder: Encoder
) -> list[str] | list[None]:
    """Return the languages that models of a task are asked for; None stands for all as one."""
    if request.languages is None:
        return [None]
    available = origin.training_rows(name, encoder, request.mirror)
    if missing := [one for one in request.languages if one not in available]:
        raise ValueError(
            f"`--language` must name languages that {name} has training rows in "
            f"({', '.join(available)}), but names {', '.join(missing)}."
        )
    declared: list[str] = origin.config["task"][name]["languages"]
    if not request.languages and (without := [one for one in declared if one not in available]):
        log.warning("%s has no training rows, and no model, in %s.", name, ", ".join(without))
    languages, examples = list(request.languages or available), request.manner.draw.examples
    if few := [one for one in languages if available[one] < examples]:
        raise ValueError(
            f"`--examples` must be at most the {available[few[0]]:,} training examples of {name} "
            f"in {few[0]}, but is {examples:,}: draw fewer, or leave it out with `--language`."
        )
    return languages


def make(
    model: ShippedModel,
    encoded: EncodedTask,
    manner: Manner,
    *,
    folder: Path,
    of: Mapping[str, Any],
    language: str | None = None,
) -> Outcome:
    """Cut a model to one of its tasks, and write it into ``folder`` with what came of it.

    Without validation data nothing is evaluated. ``of`` says what is cut, for whoever reads it, as
    ``language`` does, in which all rows of ``encoded`` then are.

    Raises:
        ValueError: if what is asked for cannot be.
    """
    start, name = time.perf_counter(), encoded.name
    examples = calibration_set(encoded, model, manner.draw)
    made = specialized(model, encoded.task, name, examples, manner.recipe)
    seconds = time.perf_counter() - start
    evaluate = manner.evaluate and "validation" in encoded.splits
    before = validated(model.only(name), encoded) if evaluate else {}
    after = validated(made.model, encoded) if evaluate else {}
    outcome = Outcome(
        task=name,
        language=language,
        folder=folder,
        labels=examples.counts,
        budget=made.budget,
        before=before,
        after=after,
        seconds=seconds,
        warning=examples.warning,
    )
    content = {"task": name, "language": language, **of} | _content(manner, made, outcome)
    with exported_folder(folder) as beside:
        made.model.save(beside)
        (beside / OUTCOME).write_text(json.dumps(content, indent=2) + "\n")
        measured = Measured(outcome.validation, outcome.budget, made.ledger.rows())
        write_card(beside, made.model, measured)
    return outcome


def _content(manner: Manner, made: Specialist, outcome: Outcome) -> dict[str, Any]:
    recipe = manner.recipe
    return {
        "method": recipe.method,
        "options": asdict(recipe.choice),
        "granularity": list(recipe.granularity),
        "relative": recipe.relative,
        "rounds": recipe.rounds,
        "repair": recipe.repair,
        "rescaled_layers": made.rescaled,
        "draw": asdict(manner.draw),
        "labels": outcome.labels,
        "before": outcome.before,
        "validation": outcome.validation,
        "budget": asdict(outcome.budget),
        "ledger": [asdict(row) for row in made.ledger.rows()],
        "seconds": outcome.seconds,
    }
