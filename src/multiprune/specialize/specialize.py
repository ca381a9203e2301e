"""Write specialized models, one folder per task, or per task and language."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from multiprune.export.card import Measured, write_card
from multiprune.export.checkpoint import check_is_new
from multiprune.export.exported_folder import exported_folder
from multiprune.models.encoder import Encoder
from multiprune.specialize.calibration_set import calibration_set
from multiprune.specialize.specialist import specialized, validated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from multiprune.data.batches import EncodedTask
    from multiprune.export.shipped import ShippedModel
    from multiprune.runs.budget_outcome import BudgetOutcome
    from multiprune.specialize.origin import Origin
    from multiprune.specialize.recipe import Recipe
    from multiprune.specialize.request import Request

log = logging.getLogger(__name__)

#: Written into the folder of each model.
OUTCOME = "specialized.json"


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


def specialize(
    request: Request, recipe: Recipe, *, out: Path | None = None, evaluate: bool = True
) -> Iterator[Outcome]:
    """Cut one model after the other, write each, and say what came of it.

    Args:
        request: of what.
        recipe: how they are cut.
        out: folder of the folders that are written: ``<task>``, or ``<task>.<language>``;
            ``specialized`` in that of the run by default.
        evaluate: measure scores on validation data, before and after.

    Raises:
        ValueError: if the model has no such task, a task no training rows in a language, or what is
            asked for cannot be.
        FileExistsError: if a folder exists that would be written.
        FileNotFoundError: if there is no finished run.
    """
    model, origin, tasks = request.opened()
    out = out or request.run / "specialized"
    encoder = Encoder(model.encoder, model.tokenizer)
    wanted = [
        (name, language)
        for name in tasks
        for language in _languages(request, recipe, origin, name, encoder)
    ]
    folders = [out / (f"{one}.{language}" if language else one) for one, language in wanted]
    for folder in folders:
        check_is_within(folder, out)
        check_is_new(folder)
    of = {"run": str(request.run)}
    for (name, language), folder in zip(wanted, folders, strict=True):
        encoded = origin.encoded(name, encoder, request.mirror, language=language)
        yield make(
            model, encoded, recipe, folder=folder, of=of, language=language, evaluate=evaluate
        )


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
    request: Request, recipe: Recipe, origin: Origin, name: str, encoder: Encoder
) -> list[str] | list[None]:
    """Return the languages that models of a task are asked for; None stands for all as one."""
    if request.languages is None:
        return [None]
    available = origin.training_rows(name, encoder, request.mirror)
    if missing := [one for one in request.languages if one not in available]:
        raise ValueError(
            f"`languages` must name languages that {name} has training rows in "
            f"({', '.join(available)}), but names {', '.join(missing)}."
        )
    declared: list[str] = origin.config["task"][name]["languages"]
    if not request.languages and (without := [one for one in declared if one not in available]):
        log.warning("%s has no training rows, and no model, in %s.", name, ", ".join(without))
    languages, examples = list(request.languages or available), recipe.examples
    if few := [one for one in languages if available[one] < examples]:
        raise ValueError(
            f"`examples` must be at most the {available[few[0]]:,} training examples of {name} "
            f"in {few[0]}, but is {examples:,}: draw fewer, or leave it out of `languages`."
        )
    return languages


def make(
    model: ShippedModel,
    encoded: EncodedTask,
    recipe: Recipe,
    *,
    folder: Path,
    of: Mapping[str, Any],
    language: str | None = None,
    evaluate: bool = True,
) -> Outcome:
    """Cut a model to one of its tasks, and write it into ``folder`` with what came of it.

    Without validation data nothing is evaluated. ``of`` says what is cut, for whoever reads it, as
    ``language`` does, in which all rows of ``encoded`` then are.

    Raises:
        ValueError: if what is asked for cannot be.
    """
    start, name = time.perf_counter(), encoded.name
    examples = calibration_set(encoded, model, recipe)
    made = specialized(model, encoded.task, name, examples, recipe)
    seconds = time.perf_counter() - start
    evaluate = evaluate and "validation" in encoded.splits
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
    content = {
        "task": name,
        "language": language,
        **of,
        "recipe": recipe.settings(),
        "rescaled_layers": made.rescaled,
        "labels": outcome.labels,
        "before": before,
        "validation": outcome.validation,
        "budget": asdict(outcome.budget),
        "ledger": [asdict(row) for row in made.ledger.rows()],
        "seconds": seconds,
    }
    with exported_folder(folder) as beside:
        made.model.save(beside)
        (beside / OUTCOME).write_text(json.dumps(content, indent=2) + "\n")
        measured = Measured(outcome.validation, outcome.budget, made.ledger.rows())
        write_card(beside, made.model, measured)
    return outcome
