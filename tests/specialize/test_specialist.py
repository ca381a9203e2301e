"""What specialization is for: the units that a task needs are found from a few examples."""

from __future__ import annotations

import copy

import pytest
import torch
from datasets import Dataset
from torch import nn

from multiprune.budget import FractionBudget
from multiprune.data.batches import EncodedTask
from multiprune.data.source import HubSource
from multiprune.export.loading import ShippedModel
from multiprune.models.architectures import NEURONS
from multiprune.models.encoder import nano
from multiprune.models.multitask import MultitaskModel
from multiprune.models.structure import layers_of
from multiprune.specialize.calibration_set import CalibrationSet, Draw, calibration_set
from multiprune.specialize.methods import Choice
from multiprune.specialize.specialist import Recipe, specialized, validated
from multiprune.tasks.classification import Classification
from multiprune.tasks.metrics import accuracy

TASKS = ("first", "second")
NEURONS_OF_EACH = 8
#: Neurons whose output reaches the head of one task alone.
OWN = {"first": range(8), "second": range(8, 16)}


def task() -> Classification:
    return Classification(
        text=["text"],
        label="label",
        labels=["no", "yes"],
        metrics={"accuracy": accuracy},
        source=HubSource(path=None, mirror="nowhere"),
    )


def two_tasks() -> ShippedModel:
    """Make a model in which each task reads its own half of the hidden states and neurons."""
    torch.manual_seed(0)
    encoder = nano(layers=1, hidden=16, heads=2, intermediate=16)
    model = MultitaskModel(encoder.model, dict.fromkeys(TASKS, task()))
    # A norm would mix what the halves hold.
    encoder.model.get_submodule("encoder.layer.0.output").add_module("LayerNorm", nn.Identity())
    linear = layers_of(encoder.model)[0].output_of(NEURONS)
    nn.init.normal_(linear.weight)
    with torch.no_grad():
        linear.weight[8:, :8] = 0
        linear.weight[:8, 8:] = 0
        for number, name in enumerate(TASKS):
            weight = model.heads[name].get_parameter("output.weight")
            nn.init.normal_(weight)
            weight[:, 8 * (1 - number) : 8 * (2 - number)] = 0
    meaning = {name: dict(task().definition) for name in TASKS}
    return ShippedModel(model.encoder, model.heads, meaning, encoder.tokenizer).eval()


def encoded(name: str, rows: int = 40) -> EncodedTask:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 80, (rows, 6), generator=generator).tolist()
    table = Dataset.from_dict({"input_ids": ids, "labels": [row % 2 for row in range(rows)]})
    splits = {"train": table, "validation": table}
    return EncodedTask(name=name, task=task(), splits=splits, truncated=0, padding_token=0)


def examples_of(name: str, model: ShippedModel) -> CalibrationSet:
    return calibration_set(encoded(name), model, Draw(examples=40, labels="pseudo"))


def kept_neurons(model: ShippedModel, small: ShippedModel) -> set[int]:
    """Return which neurons of the whole model are left, told by their weights."""
    whole, left = (
        one.encoder.get_submodule("encoder.layer.0.intermediate.dense").get_parameter("weight")
        for one in (model, small)
    )
    return {next(i for i, one in enumerate(whole) if torch.equal(one, row)) for row in left}


@pytest.mark.parametrize("method", ["attribution", "fisher", "taylor"])
@pytest.mark.parametrize("name", TASKS)
def test_neurons_that_the_task_reads_are_kept(name: str, method: str) -> None:
    model = two_tasks()
    before = copy.deepcopy(model.state_dict())
    # Half of the neurons, and the attention: 1,024 + 256 of 1,536 weights.
    recipe = Recipe(
        budget=FractionBudget(fraction=0.8334),
        method=method,
        choice=Choice(absolute=True),
        granularity=["neurons"],
    )
    made = specialized(model, task(), name, examples_of(name, model), recipe)
    kept = kept_neurons(model, made.model)
    assert len(kept) == NEURONS_OF_EACH
    assert kept == set(OWN[name])
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


def test_score_is_the_share_of_right_answers_in_any_order() -> None:
    model, name = two_tasks(), "first"
    rows = encoded(name)
    inputs = torch.tensor(rows.splits["validation"]["input_ids"][:])
    with torch.no_grad():
        logits = model(name, {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)})
    right = (logits.argmax(-1) == torch.arange(40) % 2).float().mean()
    assert validated(model, rows)["accuracy"] == pytest.approx(float(right))
