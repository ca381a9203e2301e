"""Hidden dimensions as a granularity: what they cost, how many go, and what is refused."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from structured_world import (
    STOP_STEP,
    TOTAL_STEPS,
    Case,
    Network,
    Run,
    driver_of,
    files,
    linear_weights,
    loss_of,
    one_step,
    spare_of,
    with_importance,
)
from tiny_encoders import HEAD_SIZE, HEADS_PER_LAYER, HIDDEN, INTERMEDIATE, tokens
from torch import nn
from torch.optim import AdamW

from multiprune.budget import CountBudget, FractionBudget
from multiprune.models.modeling_multiprune import DroppedLayer
from multiprune.pruning.attribution import Fisher
from multiprune.pruning.attribution_pruner import AttributionPruner
from multiprune.pruning.by_task import MeanRank
from multiprune.pruning.combined import Combined
from multiprune.pruning.dynamic_sparsification import DynamicSparsification
from multiprune.pruning.hidden_removal import hidden_to_remove
from multiprune.pruning.importance import (
    GateFisher,
    RandomImportance,
    WeightMagnitude,
)
from multiprune.pruning.magnitude import Magnitude
from multiprune.pruning.removal import BLOCKS, GRANULARITIES, HEADS, LAYERS, NEURONS
from multiprune.pruning.structured import Structured

ALONE, EVERYTHING = ("hidden",), (*GRANULARITIES, "hidden")
KINDS = (ALONE, (HEADS, "hidden"), (HEADS, NEURONS, "hidden"), EVERYTHING)
# Of the tiny BERT: tokens, positions and segments.
ROWS = 40 + 20 + 2


@pytest.mark.parametrize("kinds", KINDS, ids="+".join)
@pytest.mark.parametrize("name", ["bert", "roberta", "xlm_roberta", "camembert", "distilbert"])
def test_ledger_counts_the_parameters_of_the_cut_model(name: str, kinds: tuple[str, ...]) -> None:
    for of in ("encoder_linear", "encoder", "total"):
        for fraction in (0.9, 0.6, 0.25):
            model = Network(name)
            pruner = with_importance(WeightMagnitude(), kinds, fraction=fraction, of=of)
            pruner.prepare(model, model.encoder)
            asked = pruner.budget.resolve(pruner.ledger())
            pruner.prune(1.0)
            spare, before = spare_of(pruner), model(tokens())
            pruner.finalize()
            torch.testing.assert_close(model(tokens()), before, rtol=1e-4, atol=1e-5)
            ledger = pruner.ledger()
            counted = {
                "encoder_linear": linear_weights(model.encoder),
                "encoder": sum(one.numel() for one in model.encoder.parameters()),
                "total": sum(one.numel() for one in model.parameters()),
            }
            assert {key: ledger.kept_in(key) for key in counted} == counted
            assert asked - (spare + 1) < counted[of] <= asked  # a neuron has a bias


def test_ledger_says_that_embeddings_norms_and_heads_are_in_scope() -> None:
    model = Network()
    pruner = with_importance(WeightMagnitude(), (NEURONS, "hidden"))
    pruner.prepare(model, model.encoder)
    neurons = 2 * INTERMEDIATE
    assert pruner.ledger().prunable == {
        "embeddings": ROWS * HIDDEN,
        "encoder_linear": 11_264,
        # Five norms; the biases of queries, keys, values, neurons, and both outputs.
        "encoder_other": 5 * 2 * HIDDEN + 2 * 3 * HIDDEN + neurons + 2 * 2 * HIDDEN,
        "heads": 3 * HIDDEN,
    }
    assert pruner.ledger().fixed_in("total") == 3  # the bias of the head


def test_cost_of_a_dimension_is_what_it_has_of_what_is_left() -> None:
    model = Network()
    pruner = with_importance(RandomImportance(), (HEADS, NEURONS, "hidden"), of="encoder")
    pruner.prepare(model, model.encoder)
    kept = [state.kept() for state in pruner.states]
    kept[0].heads[:3] = False
    kept[1].neurons[:20] = False
    heads, neurons = 2 * HEADS_PER_LAYER - 3, 2 * INTERMEDIATE - 20
    # Norms have a weight and a bias a dimension, and what writes to the stream a bias.
    expected = ROWS + 5 * 2 + 4 * HEAD_SIZE * heads + 2 * neurons + 4
    assert pruner._sizes.hidden_cost(kept) == expected


def test_costs_of_units_follow_the_dimensions_that_are_left() -> None:
    model = Network()
    pruner = with_importance(RandomImportance(), (HEADS, NEURONS, "hidden"))
    pruner.prepare(model, model.encoder)
    assert pruner.hidden is not None
    pruner.hidden.state.keep(torch.arange(HIDDEN) < 11)
    assert [(one.head_dimension, one.neuron) for one in pruner._sizes.costs] == [
        (4 * 11, 2 * 11)
    ] * 2


def test_importance_of_a_dimension_is_the_square_of_its_gates_gradient() -> None:
    """By hand, from gates in the graph behind every norm."""
    model = Network().double()
    gate = torch.ones(HIDDEN, dtype=torch.float64, requires_grad=True)
    pruner = with_importance(GateFisher(smoothing=0.75), (NEURONS, "hidden"), of="encoder")
    pruner.prepare(model, model.encoder)
    assert pruner.hidden is not None
    handles = [
        norm.register_forward_hook(lambda _, __, output: output * gate)
        for norm in pruner.hidden.state.parts.norms
    ]
    expected = torch.zeros(HIDDEN, dtype=torch.float64)
    for number in range(2):
        model.zero_grad()
        gate.grad = None
        loss_of(model, number).backward()  # type: ignore[no-untyped-call]
        assert gate.grad is not None
        expected = 0.75 * expected + 0.25 * gate.grad.square()
        pruner.before_step()
        pruner.after_step()
    for handle in handles:
        handle.remove()
    kept = [state.kept() for state in pruner.states]
    cost = ROWS + 5 * 2 + 4 * HEAD_SIZE * 8 + 2 * 2 * INTERMEDIATE + 4
    found = pruner.hidden_scores(kept).double()
    torch.testing.assert_close(found * cost, expected, rtol=1e-5, atol=1e-10)
    assert expected.max() > 2 * expected.min()


def test_importance_by_magnitude_is_the_norm_of_all_columns_and_rows() -> None:
    model = Network()
    pruner = with_importance(WeightMagnitude(), ALONE)
    pruner.prepare(model, model.encoder)
    assert pruner.hidden is not None
    encoder: Any = model.encoder
    matrices = [one.weight.T for one in (encoder.embeddings.word_embeddings,)]
    matrices += [encoder.embeddings.position_embeddings.weight.T]
    matrices += [encoder.embeddings.token_type_embeddings.weight.T, model.head.weight.T]
    for layer in encoder.encoder.layer:
        own = layer.attention.self
        matrices += [one.weight.T for one in (own.query, own.key, own.value)]
        matrices += [layer.attention.output.dense.weight, layer.output.dense.weight]
        matrices += [layer.intermediate.dense.weight.T]
    found = pruner.importance.measure_hidden(pruner.hidden.state.parts)
    torch.testing.assert_close(found, torch.cat(matrices, 1).norm(dim=1))


@given(st.data())
def test_so_many_go_as_a_walk_over_one_ranking_takes(data: st.DataObject) -> None:
    """Dimensions and units of products of costs, one by one in the order of their scores."""
    scores = data.draw(st.lists(st.integers(0, 999), min_size=2, max_size=30, unique=True))
    split = data.draw(st.integers(1, len(scores) - 1))
    dimensions, units = sorted(scores[:split]), sorted(scores[split:])
    outside = data.draw(st.integers(0, 5))

    def total(left: int, above: int) -> int:
        return left * (outside + 2 * above)

    size = data.draw(st.integers(0, total(len(dimensions), len(units))))
    left, above = len(dimensions), len(units)
    for score in sorted(scores):
        is_dimension = score in dimensions
        after = total(left - is_dimension, above - (not is_dimension))
        # A unit that takes too much is left to who meets the budget with units.
        if is_dimension and (after < size or left == 1):
            break
        left, above = left - is_dimension, above - (not is_dimension)
    while left > 1 and total(left, 1) > size:  # one unit stays
        left -= 1

    def size_above(score: float, count: int) -> int:
        return total(count, sum(unit >= score for unit in units))

    found = hidden_to_remove(dimensions, size_above, lambda count: total(count, 1), size)
    assert len(dimensions) - found == left


@pytest.mark.parametrize("file", [one for one in files() if Case(one).method.knows_hidden], ids=str)
@pytest.mark.parametrize("kinds", [(HEADS, NEURONS, "hidden"), (HEADS, NEURONS, BLOCKS, "hidden")])
def test_many_budgets_are_met_with_less_than_a_neuron_to_spare(
    file: Any, kinds: tuple[str, ...]
) -> None:
    for percent in range(12, 100, 8):
        _, pruner, _ = Case(file, kinds, fraction=percent / 100).trained(STOP_STEP)
        asked = 11_264 * percent // 100
        assert asked - spare_of(pruner) < pruner.ledger().kept_in("encoder_linear") <= asked, (
            percent
        )
        assert pruner.is_cut


def test_budget_of_the_encoder_makes_the_embeddings_smaller() -> None:
    model = Network()
    pruner = with_importance(WeightMagnitude(), EVERYTHING, fraction=0.3, of="encoder")
    pruner.prepare(model, model.encoder)
    pruner.prune(1.0)
    pruner.finalize()
    assert pruner.hidden is not None
    left = model.encoder.config.hidden_size
    assert left < HIDDEN
    for embedding in (one for one in model.modules() if isinstance(one, nn.Embedding)):
        assert embedding.weight.shape[1] == embedding.embedding_dim == left
    assert pruner.ledger().kept["embeddings"] == ROWS * left


def test_smallest_budget_keeps_a_dimension_and_is_said() -> None:
    # One dimension of 8 heads and 48 neurons.
    least = 4 * HEAD_SIZE * 8 + 2 * 48
    for asked in (least - 1, least):
        model = Network()
        pruner = Structured(
            budget=CountBudget(count=asked), importance=RandomImportance(), granularity=ALONE
        )
        if asked == least:
            pruner.prepare(model, model.encoder)
            pruner.prune(1.0)
            assert pruner.ledger().kept_in("encoder_linear") == least == 352
            continue
        with pytest.raises(ValueError, match=r"351 parameters .* pruning hidden .* is 352\. "):
            pruner.prepare(model, model.encoder)
        assert model.state_dict().keys() == Network().state_dict().keys()
        assert not any(one._forward_hooks for one in model.modules())


def test_dropped_layers_are_cut_along_and_resumed() -> None:
    case = Case(files()[2], (LAYERS, "hidden"), fraction=0.3)
    straight = Run.fresh(case, seed=0)
    straight.train(range(10))
    saved = straight.save()
    resumed = Run.fresh(case, seed=1, saved=saved)
    for run in (straight, resumed):
        dropped = [one for one in run.model.modules() if isinstance(one, DroppedLayer)]
        assert len(dropped) == 1
        assert run.model.encoder.config.hidden_size < HIDDEN
        run.train(range(10, TOTAL_STEPS))
    assert resumed.bits() == straight.bits()


@pytest.mark.parametrize("steps", [4, 10])
def test_state_is_loaded_twice(steps: int) -> None:
    """While something is masked, and after the cut."""
    case = Case(files()[2], (NEURONS, "hidden"))
    straight = Run.fresh(case, seed=0)
    straight.train(range(steps))
    assert not straight.pruner.masks()["hidden"].all()
    saved = straight.save()
    resumed = Run.fresh(case, seed=1, saved=saved)
    resumed.train(range(steps, TOTAL_STEPS))
    resumed = Run.fresh(case, seed=1, saved=saved) if steps < STOP_STEP else resumed
    resumed.model.load_state_dict(torch.load(io.BytesIO(saved))[0])
    assert resumed.bits() == straight.bits()
    assert torch.equal(resumed.model(tokens()), straight.model(tokens()))


def test_whole_state_is_loaded_into_a_masked_model() -> None:
    case = Case(files()[2], ALONE)
    dense, run = Run.fresh(case, seed=0), Run.fresh(case, seed=1)
    expected = dense.model(tokens())
    run.train(range(4))
    assert not run.pruner.masks()["hidden"].all()
    run.model.load_state_dict(dense.model.state_dict())
    assert torch.equal(run.model(tokens()), expected)


def test_frozen_embeddings_are_cut_along() -> None:
    # As CoFi has it: they are frozen, and hidden dimensions go all the same.
    model = Network()
    embeddings: Any = model.encoder.get_input_embeddings()
    embeddings.weight.requires_grad_(False)
    before = embeddings.weight.clone()
    pruner = with_importance(GateFisher(smoothing=0.5), ALONE)
    pruner.prepare(model, model.encoder)
    pruner.check_ready()
    optimizer = AdamW(model.parameters(), lr=0.01)
    driver_of(pruner, optimizer)
    for step in range(TOTAL_STEPS):
        one_step(model, optimizer, step)
    assert not embeddings.weight.requires_grad
    assert torch.equal(embeddings.weight, before[:, pruner.masks()["hidden"]])


def refused() -> list[Any]:
    budget, kinds = FractionBudget(0.5), EVERYTHING
    importance = GateFisher(smoothing=0.5)
    return [
        lambda: AttributionPruner(budget=budget, method=Fisher(), granularity=kinds),
        lambda: DynamicSparsification(budget=budget, importance=importance, granularity=kinds),
        lambda: Structured(
            budget=budget, importance=importance, granularity=kinds, by_task=MeanRank(tasks=["a"])
        ),
        lambda: Combined(
            budget=budget,
            structured=lambda budget: Structured(
                budget=budget, importance=importance, granularity=kinds
            ),
            element_wise=Magnitude,
        ).prepare(Network()),
    ]


@pytest.mark.parametrize("number", range(4))
def test_what_cannot_remove_hidden_dimensions_says_so(number: int) -> None:
    with pytest.raises(ValueError, match=r"hidden dimensions.*`hidden` out of"):
        refused()[number]()


def test_tied_embeddings_are_refused() -> None:
    model = Network()
    encoder: Any = model.encoder
    encoder.embeddings.tied = nn.Linear(HIDDEN, 40, bias=False)
    encoder.embeddings.tied.weight = encoder.get_input_embeddings().weight
    with pytest.raises(ValueError, match="the weight of a layer, Embedding, is tied to another"):
        with_importance(WeightMagnitude(), ALONE).prepare(model, model.encoder)
