"""Parts inside one another, all on the weights of the whole, until the smallest is all there is."""

from __future__ import annotations

import copy
import io
from typing import TYPE_CHECKING, Any

import pytest
import torch
from nested_world import cut
from structured_world import (
    ALL_FILES,
    EVERY_N_STEPS,
    STOP_STEP,
    TOTAL_STEPS,
    Case,
    Network,
    Run,
    adamw,
    assert_same,
    driver_of,
    one_step,
)
from tiny_encoders import TEXT_TO_TEXT, tiny_encoder, tokens
from torch import Tensor, nn

from multiprune.budget import FractionBudget, FullBudget
from multiprune.budget.ledger import ParameterLedger
from multiprune.models.structure import layers_of
from multiprune.pruning.dynamic_sparsification import ORDER, DynamicSparsification
from multiprune.pruning.importance import RandomImportance, WeightMagnitude
from multiprune.pruning.layer_state import STATE
from multiprune.pruning.progress import STEP
from multiprune.pruning.removal import (
    BLOCKS,
    GRANULARITIES,
    HEAD_DIMENSIONS,
    HEADS,
    LAYERS,
    NEURONS,
)

if TYPE_CHECKING:
    from multiprune.budget import Budget
    from multiprune.models.nested import RemovalOrder

FILE = next(one for one in ALL_FILES if one.stem == "dynamic_sparsification")
KINDS = [(HEADS, NEURONS), GRANULARITIES]
every_granularity = pytest.mark.parametrize("granularity", KINDS, ids=["units", "all"])


def pruner_of(budget: Budget | None = None, **options: Any) -> DynamicSparsification:
    settings: dict[str, Any] = {"importance": WeightMagnitude(), "granularity": GRANULARITIES}
    settings |= options
    return DynamicSparsification(budget=budget or FractionBudget(fraction=0.4), **settings)


def pruned(**options: Any) -> tuple[Network, DynamicSparsification]:
    model, pruner = Network(), pruner_of(**options)
    pruner.prepare(model, model.encoder)
    pruner.prune(1.0)
    return model, pruner


def trained(granularity: tuple[str, ...], steps: int) -> tuple[Network, DynamicSparsification]:
    model, pruner, _ = Case(FILE, granularity).trained(steps)
    assert isinstance(pruner, DynamicSparsification)
    return model, pruner


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return what a model has that is not being pruned."""
    state = model.state_dict()
    others = (f".{STATE}.", ORDER, STEP)
    return {key: one for key, one in state.items() if not any(other in key for other in others)}


def plain(model: Network, order: RemovalOrder, removals: int) -> Network:
    """Return a network of the same weights, cut for good."""
    copied = Network()
    copied.load_state_dict(weights_of(model))
    copied.encoder = cut(copied.encoder, order, removals)
    return copied.eval()


def positions(order: RemovalOrder) -> dict[str, Tensor]:
    layers = {
        f"{number}.{name}": one
        for number, layer in enumerate(order.layers)
        for name, one in vars(layer).items()
    }
    return layers | {"sizes": order.sizes}


@every_granularity
def test_encoder_is_whole_in_training_its_smallest_part_in_evaluation_and_any_part_on_demand(
    granularity: tuple[str, ...],
) -> None:
    model, pruner = trained(granularity, STOP_STEP)
    order = pruner.current_order()
    assert order.smallest > 8
    batch = tokens(5)
    smallest, whole = plain(model, order, order.smallest), plain(model, order, 0)
    assert not torch.allclose(smallest(batch), whole(batch), atol=1e-3)
    torch.testing.assert_close(model.eval()(batch), smallest(batch))
    torch.testing.assert_close(model.train()(batch), whole(batch))
    for mode in (True, False):
        model.train(mode)
        for removals in (0, 1, order.smallest // 2, order.smallest):
            with pruner.part(removals):
                found = model(batch)
                with pruner.part(1):
                    inner = model(batch)
                again = model(batch)
            torch.testing.assert_close(found, plain(model, order, removals)(batch))
            torch.testing.assert_close(inner, plain(model, order, 1)(batch))
            assert torch.equal(found, again)
    torch.testing.assert_close(model.eval()(batch), smallest(batch))


@every_granularity
def test_masks_are_those_of_the_smallest_part(granularity: tuple[str, ...]) -> None:
    _, pruner = trained(granularity, STOP_STEP)
    order = pruner.current_order()
    for state, units in zip(pruner.states, order.units(order.smallest), strict=True):
        assert_same(state.units(), units)
    ledger, of = pruner.ledger(), "encoder_linear"
    assert order.sizes[0] - order.sizes[-1] == ledger.dense_in(of) - ledger.kept_in(of)


@every_granularity
def test_order_changes_until_the_schedule_ends_and_not_afterwards(
    granularity: tuple[str, ...],
) -> None:
    case = Case(FILE, granularity, fraction=0.7)
    model, pruner = case.prepared()
    assert isinstance(pruner, DynamicSparsification)
    optimizer = adamw(model.parameters())
    driver_of(pruner, optimizer)
    orders = [positions(pruner.current_order())]
    for step in range(TOTAL_STEPS):
        one_step(model, optimizer, step)
        orders.append(positions(pruner.current_order()))
    changed = [
        number
        for number in range(1, TOTAL_STEPS + 1)
        if any(not torch.equal(one, orders[number - 1][key]) for key, one in orders[number].items())
    ]
    assert changed == [EVERY_N_STEPS, 2 * EVERY_N_STEPS, STOP_STEP]


def test_ranking_anew_does_not_know_what_had_gone() -> None:
    model, pruner = pruned(granularity=(NEURONS,), budget=FractionBudget(fraction=0.9))
    layer = layers_of(model.encoder)[0]
    before = pruner.states[0].kept().neurons
    gone = int((~before).nonzero()[0])
    with torch.no_grad():
        layer.output_of("neurons").weight[:, gone] += 100
    pruner.prune(1.0)
    after = pruner.states[0].kept().neurons
    assert not before[gone]
    assert after[gone]
    fresh, other = Network(), pruner_of(granularity=(NEURONS,), budget=pruner.budget)
    fresh.load_state_dict(weights_of(model))
    other.prepare(fresh, fresh.encoder)
    other.prune(1.0)
    assert_same(positions(pruner.current_order()), positions(other.current_order()))


def test_parts_of_a_step_depend_on_the_seed_and_the_step_alone() -> None:
    _, pruner = pruned(sampled=3, seed=4)
    expected = {step: pruner.parts_of_step(step) for step in range(20)}
    torch.manual_seed(1)
    _, again = pruned(sampled=3, seed=4)
    for step in reversed(range(20)):
        torch.rand(3)
        assert again.parts_of_step(step) == expected[step]
    assert len({tuple(parts) for parts in expected.values()}) > 15
    _, other = pruned(sampled=3, seed=5)
    assert all(other.parts_of_step(step) != expected[step] for step in range(20))


@pytest.mark.parametrize("sampled", [0, 1, 4])
def test_a_step_trains_the_smallest_and_sizes_spread_between_the_ends(sampled: int) -> None:
    # A block, or a layer, is more than a tenth of the encoder.
    _, pruner = pruned(sampled=sampled, granularity=(HEADS, NEURONS))
    order = pruner.current_order()
    drawn = []
    for step in range(300):
        smallest, *parts = pruner.parts_of_step(step)
        assert smallest == order.smallest
        assert len(parts) == sampled
        drawn += order.sizes[parts].tolist()
    if sampled:
        small, whole = int(order.sizes[-1]), int(order.sizes[0])
        assert all(small <= size < whole for size in drawn)
        tenth = (whole - small) / 10
        assert min(drawn) < small + 2 * tenth
        assert max(drawn) > whole - 2 * tenth
        assert abs(sum(drawn) / len(drawn) - (small + whole) / 2) < tenth


def test_no_parts_are_trained_before_anything_is_pruned() -> None:
    model, pruner = Network(), pruner_of()
    pruner.prepare(model, model.encoder)
    assert pruner.parts_of_step(0) == []
    pruner.prune(0.0)
    assert pruner.parts_of_step(0) == []
    pruner.prune(0.1)
    assert pruner.parts_of_step(0)


@pytest.mark.parametrize("steps", [1, 4, STOP_STEP, STOP_STEP + 1])
@every_granularity
def test_loaded_state_has_its_order_and_its_parts(granularity: tuple[str, ...], steps: int) -> None:
    case = Case(FILE, granularity)
    model, pruner = trained(granularity, steps)
    # What it is loaded into has an order of its own, which must not be remembered.
    other, into = Network(seed=3), case.pruner()
    assert isinstance(into, DynamicSparsification)
    into.prepare(other, other.encoder)
    into.prune(0.6)
    batch = tokens(2)
    with torch.no_grad():
        other(batch)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert_same(positions(into.current_order()), positions(pruner.current_order()))
    assert [into.parts_of_step(one) for one in range(9)] == [
        pruner.parts_of_step(one) for one in range(9)
    ]
    assert torch.equal(other.eval()(batch), model.eval()(batch))


def test_run_that_continues_trains_the_same_sizes() -> None:
    case = Case(FILE, GRANULARITIES)
    straight = Run.fresh(case, seed=0)
    straight.train(range(5))
    saved = straight.save()
    straight.train(range(5, TOTAL_STEPS))
    resumed = Run.fresh(case, seed=1, saved=saved)
    resumed.train(range(5, TOTAL_STEPS))
    for one, other in [(resumed.pruner, straight.pruner)]:
        assert isinstance(one, DynamicSparsification)
        assert isinstance(other, DynamicSparsification)
        assert_same(positions(one.current_order()), positions(other.current_order()))
        assert one.parts_of_step(TOTAL_STEPS) == other.parts_of_step(TOTAL_STEPS)
        assert other.parts_of_step(TOTAL_STEPS)


@every_granularity
def test_what_is_left_at_the_end_is_the_smallest_and_the_whole_beside_it(
    granularity: tuple[str, ...],
) -> None:
    model, pruner = trained(granularity, TOTAL_STEPS)
    batch = tokens(3)
    with torch.no_grad():
        whole, smallest = model.train()(batch), model.eval()(batch)
    weights = weights_of(model)
    order = pruner.current_order()
    ledger = pruner.ledger()
    assert pruner.sizes() is None
    pruner.finalize()
    torch.testing.assert_close(model(batch), smallest)
    torch.testing.assert_close(model.train()(batch), smallest)
    assert pruner.ledger() == ledger
    mine = ParameterLedger.of(model, model.encoder)
    assert mine.dense_in("encoder_linear") == ledger.kept_in("encoder_linear")
    assert not model.encoder._forward_pre_hooks
    assert not model.encoder._forward_hooks
    assert not model.encoder._load_state_dict_post_hooks

    sizes = pruner.sizes()
    assert sizes is not None
    kept: Any = sizes.encoder
    model.encoder = kept
    torch.testing.assert_close(model.eval()(batch), whole)
    torch.testing.assert_close(model.train()(batch), whole)
    assert_same(model.state_dict(), weights)
    assert_same(
        {key: one for key, one in positions(sizes.order).items() if key != "sizes"},
        {key: one for key, one in positions(order).items() if key != "sizes"},
    )


@pytest.mark.parametrize("of", ["encoder_linear", "encoder", "total"])
@pytest.mark.parametrize("granularity", [(HEADS, NEURONS), (LAYERS,), GRANULARITIES], ids="+".join)
@pytest.mark.parametrize("name", ["bert", "modernbert", "deberta", "albert_groups"])
def test_sizes_at_the_end_are_what_a_model_of_each_size_has(
    name: str, granularity: tuple[str, ...], of: str
) -> None:
    if name in ("modernbert", "deberta") and HEAD_DIMENSIONS in granularity:
        granularity = (HEADS, NEURONS, BLOCKS, LAYERS)
    model = Network(name)
    plain_model = copy.deepcopy(model)
    budget = FractionBudget(fraction=0.7, of=of)
    pruner = pruner_of(budget=budget, granularity=granularity, importance=RandomImportance(seed=1))
    pruner.prepare(model, model.encoder)
    pruner.prune(1.0)
    pruner.finalize()
    order = pruner.current_order()
    dense = ParameterLedger.of(plain_model, plain_model.encoder).dense_in(of)
    assert order.sizes[0] == dense
    assert order.sizes[-1] == pruner.ledger().kept_in(of) <= int(0.7 * dense)
    encoder = plain_model.encoder
    for removals, size in enumerate(order.sizes.tolist()):
        plain_model.encoder = cut(encoder, order, removals)
        assert ParameterLedger.of(plain_model, plain_model.encoder).dense_in(of) == size


def test_budget_of_everything_has_one_size() -> None:
    model, pruner = pruned(budget=FullBudget())
    assert pruner.parts_of_step(3) == []
    batch = tokens()
    assert torch.equal(model.eval()(batch), model.train()(batch))
    pruner.finalize()
    assert len(pruner.current_order().sizes) == 1


def test_order_is_saved_with_the_model() -> None:
    model, _ = pruned()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    keys = torch.load(file).keys()
    assert f"encoder.{ORDER}.sizes" in keys
    assert f"encoder.{ORDER}.1_query_key" in keys


def test_encoder_is_whole_again_when_it_fails() -> None:
    model, pruner = pruned()
    before = {path: id(one) for path, one in model.named_parameters()}
    model.eval()
    expected = model(tokens())

    def fail(*_: Any) -> None:
        raise ArithmeticError

    handle = (
        layers_of(model.encoder)[1]
        .encoder.get_submodule("encoder.layer.0")
        .register_forward_hook(fail)
    )
    for removals in (4, pruner.current_order().smallest):
        with pytest.raises(ArithmeticError), pruner.part(removals):
            model(tokens())
        assert {path: id(one) for path, one in model.named_parameters()} == before
    handle.remove()
    assert torch.equal(model(tokens()), expected)


@pytest.mark.parametrize("name", TEXT_TO_TEXT)
def test_encoder_decoders_are_refused(name: str) -> None:
    encoder = tiny_encoder(name)
    with pytest.raises(ValueError, match="needs an encoder, but this model has a decoder"):
        pruner_of(granularity=(HEADS,)).prepare(encoder)
    assert not hasattr(encoder, STATE)
    assert not encoder._forward_hooks


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampled": -1}, "`sampled` must be .* but is -1"),
        ({"temperature": 0.0}, "`temperature` must be above 0, but is 0.0"),
        ({"temperature": -2.0}, "`temperature` must be above 0, but is -2.0"),
        ({"label_weight": 1.5}, r"`label_weight` must be in \[0, 1\], but is 1.5"),
        ({"label_weight": -0.1}, r"`label_weight` must be in \[0, 1\], but is -0.1"),
        ({"granularity": ["rows"]}, "`granularity` must be some of"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pruner_of(**options)


def test_budget_that_cannot_be_met_is_refused() -> None:
    model = Network()
    with pytest.raises(ValueError, match="must hold what pruning heads has to leave"):
        pruner_of(FractionBudget(fraction=0.1), granularity=(HEADS,)).prepare(model, model.encoder)
    assert not model.encoder._forward_hooks
