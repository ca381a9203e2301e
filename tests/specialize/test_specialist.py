"""What specialization is for: the units that a task needs are found from a few examples."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch
from datasets import Dataset
from recipes import recipe
from torch import Tensor, nn
from typing_extensions import override

from multiprune.budget import CountBudget
from multiprune.data.batches import EncodedTask
from multiprune.data.source import HubSource
from multiprune.export.shipped import ShippedModel
from multiprune.metrics import Accuracy
from multiprune.models.architectures import NEURONS
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.models.structure import layers_of
from multiprune.pruning.importance import Importance, Scores
from multiprune.specialize.calibration_set import CalibrationSet, calibration_set
from multiprune.specialize.recipe import METHODS, Method, Recipe
from multiprune.specialize.specialist import Specialist, specialized, validated
from multiprune.tasks.classification import Classification

if TYPE_CHECKING:
    from multiprune.models.structure import Layer

TASKS = ("first", "second")
NEURONS_OF_EACH = 8
#: Neurons whose output reaches the head of one task alone.
OWN = {"first": range(8), "second": range(8, 16)}


def task() -> Classification:
    return Classification(
        text=["text"],
        label="label",
        labels=["no", "yes"],
        metrics={"accuracy": Accuracy()},
        source=HubSource(path=None, mirror="nowhere"),
    )


def two_tasks() -> ShippedModel:
    """Make a model in which each task reads its own half of the hidden states and neurons."""
    torch.manual_seed(0)
    encoder = from_scratch(layers=1, hidden=16, heads=2, intermediate=16)
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
    meaning = {name: dict(task().description) for name in TASKS}
    return ShippedModel(model.encoder, model.heads, meaning, encoder.tokenizer).eval()


def of_two_layers() -> ShippedModel:
    """Make a model with eight neurons in each of two layers."""
    torch.manual_seed(0)
    encoder = from_scratch(layers=2, hidden=16, heads=2, intermediate=8)
    model = MultitaskModel(encoder.model, {"first": task()})
    meaning = {"first": dict(task().description)}
    return ShippedModel(model.encoder, model.heads, meaning, encoder.tokenizer).eval()


#: Of that, four projections of 16 x 16 and two of 16 x 8 in each layer, and what a neuron has.
WEIGHTS, NEURON = 2 * (4 * 16 * 16 + 2 * 16 * 8), 2 * 16


def scores(neurons: Tensor) -> Scores:
    """Return scores of a layer in which neurons alone differ."""
    dimensions = torch.ones(2, 8)
    return Scores(torch.ones(2), dimensions, dimensions, neurons, torch.ones(2), torch.ones(()))


def without_neurons(number: int, **settings: Any) -> Recipe:
    """Return how to prune the model of two layers by so many neurons."""
    defaults: dict[str, Any] = {"method": "fisher", "granularity": ["neurons"]}
    budget = CountBudget(count=WEIGHTS - number * NEURON)
    return recipe(budget=budget, **(defaults | settings))


def gone(made: Specialist) -> list[list[int]]:
    """Return which neurons of each layer have gone."""
    masks = [mask for path, mask in made.masks.items() if path.endswith(".neurons")]
    return [(~mask.bool()).nonzero()[:, 0].tolist() for mask in masks]


def encoded(name: str, rows: int = 40) -> EncodedTask:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 80, (rows, 6), generator=generator).tolist()
    table = Dataset.from_dict({"input_ids": ids, "labels": [row % 2 for row in range(rows)]})
    splits = {"train": table, "validation": table}
    return EncodedTask(name=name, task=task(), splits=splits, truncated=0, padding_token=0)


def examples_of(name: str, model: ShippedModel) -> CalibrationSet:
    return calibration_set(encoded(name), model, recipe(examples=40, labels="pseudo"))


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
    how = recipe(0.8334, method=method, absolute=True, granularity=["neurons"])
    made = specialized(model, task(), name, examples_of(name, model), how)
    kept = kept_neurons(model, made.model)
    assert len(kept) == NEURONS_OF_EACH
    assert kept == set(OWN[name])
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


@pytest.mark.parametrize("method", ["attribution", "fisher", "taylor"])
def test_units_that_reach_nothing_go_and_nothing_changes(method: str) -> None:
    model = of_two_layers()
    dead = [1, 2, 5, 7]
    with torch.no_grad():
        layers_of(model.encoder)[1].output_of(NEURONS).weight[:, dead] = 0
    how = without_neurons(len(dead), method=method, absolute=True, granularity=["heads", "neurons"])
    made = specialized(model, task(), "first", examples_of("first", model), how)
    assert gone(made) == [[], dead]
    inputs = torch.tensor(encoded("first").splits["validation"]["input_ids"][:])
    batch = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
    with torch.no_grad():
        torch.testing.assert_close(made.model("first", batch), model("first", batch))


@pytest.mark.parametrize(
    ("method", "rank", "expected"),
    [
        ("fisher", None, [[], [0, 1, 2, 3]]),
        ("fisher", "by_module", [[0, 1], [0, 1]]),
        ("attribution", None, [[0, 1], [0, 1]]),
        ("attribution", "together", [[], [0, 1, 2, 3]]),
    ],
)
def test_units_compare_with_all_or_those_of_their_layer(
    method: str, rank: str | None, expected: list[list[int]]
) -> None:
    model = of_two_layers()
    one = torch.arange(1.0, 9)
    made = specialized(
        model,
        task(),
        "first",
        examples_of("first", model),
        without_neurons(4, method=method, rank=rank),
        known=[scores(10 * one), scores(one)],
    )
    assert gone(made) == expected


@dataclass
class ByHand(Importance):
    """Scores of neurons by round, the same in both layers; notes how many have gone by then."""

    rounds: list[Tensor]
    closed: list[int] = field(default_factory=list)

    @override
    def measure(self, layer: Layer, number: int) -> Scores:
        weight = layer.output_of(NEURONS).weight
        self.closed.append(int((weight == 0).all(0).sum()))
        return scores(self.rounds[(len(self.closed) - 1) // 2])


@pytest.mark.parametrize(
    ("rounds", "expected"), [(1, [0, 1, 2, 3]), (2, [0, 1, 6, 7]), (4, [0, 5, 6, 7])]
)
def test_units_are_ranked_anew_in_each_round(
    rounds: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    up = torch.arange(1.0, 9)
    by_hand = ByHand([up, *[up.flip(0)] * 3])
    monkeypatch.setitem(METHODS, "by hand", Method(lambda _: by_hand))
    model = of_two_layers()
    how = without_neurons(8, method="by hand", rounds=rounds)
    made = specialized(model, task(), "first", examples_of("first", model), how)
    assert gone(made) == [expected, expected]
    assert by_hand.closed == [4 * done // rounds for done in range(rounds) for _ in range(2)]


def test_score_is_the_share_of_right_answers_in_any_order() -> None:
    model, name = two_tasks(), "first"
    rows = encoded(name)
    inputs = torch.tensor(rows.splits["validation"]["input_ids"][:])
    with torch.no_grad():
        logits = model(name, {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)})
    right = (logits.argmax(-1) == torch.arange(40) % 2).float().mean()
    assert validated(model, rows)["accuracy"] == pytest.approx(float(right))
