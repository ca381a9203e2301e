"""Extract a single-task model from a multitask model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from multiprune.data.batches import drawn_rows
from multiprune.measure.answered import answered
from multiprune.models.modeling_multiprune import FactoredLinear
from multiprune.models.structure import layers_of
from multiprune.pruning.attribution import Attribution
from multiprune.pruning.calibration import Attributed, LogProbabilities, attributed
from multiprune.pruning.rescale import rescale
from multiprune.pruning.structured import Structured
from multiprune.specialize.recipe import METHODS, RESCALE
from multiprune.tasks.scores import scores_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from multiprune.budget import ParameterLedger
    from multiprune.data.batches import EncodedTask
    from multiprune.export.shipped import ShippedModel
    from multiprune.pruning.importance import Scores
    from multiprune.runs.budget_outcome import BudgetOutcome
    from multiprune.specialize.calibration_set import CalibrationSet, WeighedBatch
    from multiprune.specialize.recipe import Recipe
    from multiprune.tasks.task import Task


@dataclass(frozen=True)
class Specialist:
    """A model of one task, what it has kept, of how much, and how many layers were rescaled."""

    model: ShippedModel
    ledger: ParameterLedger
    budget: BudgetOutcome
    masks: Mapping[str, Tensor]
    rescaled: int


def check_can_be_cut(model: ShippedModel) -> None:
    """Raise a ValueError if there are no heads and neurons that could go."""
    layers_of(model.encoder)
    if any(isinstance(one, FactoredLinear) for one in model.encoder.modules()):
        raise ValueError(
            "Layers must have whole matrices for heads and neurons to go, but this model was "
            "pruned by rank: its matrices are products of two."
        )


def importance(
    model: ShippedModel, task: Task, name: str, examples: CalibrationSet, recipe: Recipe
) -> list[Scores]:
    """Return how much the units of a model matter to one of its tasks, by layer."""
    chosen = METHODS[recipe.method].make(recipe)
    if isinstance(chosen, Attribution):
        return _attributed(model, task, name, chosen, examples.batches)
    return [chosen.measure(layer, i) for i, layer in enumerate(layers_of(model.encoder))]


def specialized(
    model: ShippedModel,
    task: Task,
    name: str,
    examples: CalibrationSet,
    recipe: Recipe,
    *,
    known: Sequence[Scores] | None = None,
) -> Specialist:
    """Prune a copy of ``model`` for one task; what stays is at most rescaled.

    ``known`` is the ``importance`` of the model as it is, if that was measured before.

    Raises:
        ValueError: if the budget cannot be met.
    """
    alone = model.only(name)
    pruner = Structured(
        budget=recipe.budget, importance=Attributed([]), granularity=recipe.granularity
    )
    pruner.prepare(alone, alone.encoder)
    for number in range(1, recipe.rounds + 1):
        if known is None or number > 1:
            scores = importance(alone, task, name, examples, recipe)
        else:
            scores = list(known)
        pruner.importance = Attributed(scores, per_parameter=not recipe.relative)
        pruner.prune(number / recipe.rounds)
    pruner.finalize()
    ledger = pruner.ledger()
    rescaled = 0
    if recipe.repair == RESCALE:
        inputs = [alone.encoder_inputs(name, one.batch.inputs) for one in examples.batches]
        rescaled = rescale(alone.encoder, model.encoder, inputs)
    return Specialist(alone, ledger, recipe.budget.outcome(ledger), pruner.masks(), rescaled)


def _attributed(
    model: ShippedModel,
    task: Task,
    name: str,
    method: Attribution,
    batches: Sequence[WeighedBatch],
) -> list[Scores]:
    def answers(one: WeighedBatch) -> LogProbabilities:
        logits = model(name, one.batch.inputs, one.batch.labels)
        return LogProbabilities(task.log_probabilities(logits, one.batch.labels), one.weights)

    return attributed(model, model.encoder, method, batches, answers)


def validated(
    model: ShippedModel, encoded: EncodedTask, *, head: str | None = None, rows: int | None = None
) -> dict[str, float]:
    """Return the metrics of a task on its validation data.

    Args:
        model: whose head for the task is asked.
        encoded: the task and its data.
        head: the name of another task of the model, to ask its head.
        rows: of so many examples only, always the same.
    """
    drawn = drawn_rows(encoded.splits["validation"], rows, np.random.default_rng(0))
    answers = answered(model, encoded, "validation", rows=drawn, head=head)
    return scores_of(encoded.task, answers, encoded.evaluated.get("validation"))
