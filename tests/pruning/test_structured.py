"""Structured pruning: what it refuses, counts, cuts and resumes."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from structured_world import (
    HEAD,
    NEURON,
    STOP_STEP,
    TOTAL_STEPS,
    WEIGHTS,
    Case,
    Network,
    Run,
    adamw,
    assert_same,
    driver_of,
    files,
    linear_weights,
    loss_of,
    momentum,
    one_step,
    with_importance,
)
from tiny_encoders import (
    CONFIGS,
    HIDDEN,
    RESIZABLE,
    SEVERAL_LAYERS,
    tiny_encoder,
    tokens,
)
from torch import nn
from torch.optim import AdamW

from multiprune.budget import CountBudget, FractionBudget, FullBudget
from multiprune.models.modeling_multiprune import DroppedLayer
from multiprune.models.shrink import shapes_of
from multiprune.pruning.importance import GateGradient, RandomImportance, WeightMagnitude
from multiprune.pruning.removal import (
    BLOCKS,
    GRANULARITIES,
    HEAD_DIMENSIONS,
    HEADS,
    LAYERS,
    NEURONS,
)
from multiprune.pruning.structured import Structured

if TYPE_CHECKING:
    from multiprune.pruning.importance import Scores


def test_budget_that_is_too_small_is_refused_with_the_numbers() -> None:
    model = Network()
    # Each of two layers keeps a head and a neuron.
    least = 2 * (HEAD + NEURON)
    for asked in (least - 1, least):
        pruner = Structured(budget=CountBudget(count=asked), importance=RandomImportance())
        if asked == least:
            pruner.prepare(model, model.encoder)
            pruner.prune(1.0)
            assert pruner.ledger().kept_in("encoder_linear") == least == 2176
            continue
        with pytest.raises(ValueError, match=r"2,175 parameters .* heads, neurons .* is 2,176\. "):
            pruner.prepare(model, model.encoder)
        assert model.state_dict().keys() == Network().state_dict().keys()
        assert not model.encoder._load_state_dict_pre_hooks


def test_budget_below_what_is_never_pruned_is_refused() -> None:
    model = Network()
    pruner = Structured(budget=CountBudget(count=100, of="total"), importance=RandomImportance())
    with pytest.raises(
        ValueError, match=r"must hold what is never pruned.*embeddings 1,984"
    ) as error:
        pruner.prepare(model, model.encoder)
    found = re.search(r"The smallest budget is ([\d,]+), a fraction of ([\d.]+);", str(error.value))
    assert found
    least = int(found[1].replace(",", ""))
    fraction = float(found[2])
    for budget in (
        CountBudget(count=least, of="total"),
        FractionBudget(fraction=fraction, of="total"),
    ):
        pruner = Structured(budget=budget, importance=RandomImportance())
        model = Network()
        pruner.prepare(model, model.encoder)
        pruner.prune(1.0)
        assert pruner.ledger().kept_in("total") == least


@pytest.mark.parametrize("name", [one for one in CONFIGS if one not in RESIZABLE])
def test_dimensions_of_heads_are_refused_where_the_scale_would_change(name: str) -> None:
    model = Network(name)
    pruner = with_importance(WeightMagnitude(), GRANULARITIES)
    kind = type(model.encoder).__name__
    with pytest.raises(ValueError, match=rf"of {kind} do not: leave `head_dimensions` out"):
        pruner.prepare(model, model.encoder)


def test_the_only_layer_is_not_dropped() -> None:
    model = Network("albert")
    pruner = with_importance(WeightMagnitude(), [LAYERS, NEURONS])
    with pytest.raises(ValueError, match=r"AlbertModel has one .* leave `layers` out"):
        pruner.prepare(model, model.encoder)


@pytest.mark.parametrize("granularity", [[], ["head"], ["heads", "rows"]])
def test_granularity_is_some_of_the_known_kinds(granularity: list[str]) -> None:
    with pytest.raises(ValueError, match="must be some of heads, head_dimensions, neurons, blocks"):
        with_importance(WeightMagnitude(), granularity)


def test_encoder_without_structure_is_refused() -> None:
    with pytest.raises(ValueError, match="but the encoder is 'Sequential'"):
        with_importance(WeightMagnitude()).prepare(nn.Sequential(nn.Linear(4, 4)))


def granularities(name: str) -> list[tuple[str, ...]]:
    kinds: list[tuple[str, ...]] = [(HEADS,), (NEURONS,), (HEADS, NEURONS)]
    kinds += [(BLOCKS,), (BLOCKS, HEADS, NEURONS)]
    if name in RESIZABLE:
        kinds += [(HEAD_DIMENSIONS,), (HEADS, HEAD_DIMENSIONS, NEURONS)]
    if name in SEVERAL_LAYERS:
        kinds += [(LAYERS,), (LAYERS, HEADS, NEURONS)]
    if name in RESIZABLE and name in SEVERAL_LAYERS:
        kinds.append(GRANULARITIES)
    return kinds


@pytest.mark.parametrize(
    ("name", "kinds"),
    [(name, kinds) for name in CONFIGS for kinds in granularities(name)],
    ids=lambda one: one if isinstance(one, str) else "+".join(one),
)
def test_ledger_counts_the_parameters_of_the_cut_model(name: str, kinds: tuple[str, ...]) -> None:
    for of in ("encoder_linear", "encoder", "total"):
        model = Network(name)
        dense = linear_weights(model.encoder)
        pruner = with_importance(WeightMagnitude(), kinds, fraction=0.85, of=of)
        pruner.prepare(model, model.encoder)
        asked = pruner.budget.resolve(pruner.ledger())
        pruner.prune(1.0)
        before = model(tokens())
        pruner.finalize()
        torch.testing.assert_close(model(tokens()), before, rtol=1e-4, atol=1e-5)
        ledger = pruner.ledger()
        counted = {
            "encoder_linear": linear_weights(model.encoder),
            "encoder": sum(one.numel() for one in model.encoder.parameters()),
            "total": sum(one.numel() for one in model.parameters()),
        }
        assert {key: ledger.kept_in(key) for key in counted} == counted
        assert counted[of] <= asked
        assert counted["encoder_linear"] < dense
        assert ledger.dense_in("encoder_linear") == dense


def test_cut_happens_at_the_stop_and_healing_goes_on() -> None:
    case = Case(files()[0])
    model, pruner = case.prepared()
    optimizer = adamw(model.parameters())
    driver = driver_of(pruner, optimizer)
    sizes = []
    for step in range(TOTAL_STEPS):
        one_step(model, optimizer, step)
        sizes.append(linear_weights(model.encoder))
        assert driver.was_cut == pruner.is_cut == driver.finished == (step + 1 >= STOP_STEP)
        owned = {id(one) for group in optimizer.param_groups for one in group["params"]}
        assert owned == {id(one) for one in model.parameters()}
        assert {id(one) for one in optimizer.state} <= owned
    assert sizes[: STOP_STEP - 1] == [WEIGHTS] * (STOP_STEP - 1)
    kept = pruner.ledger().kept_in("encoder_linear")
    assert sizes[STOP_STEP - 1 :] == [kept] * 4
    before = {key: one.clone() for key, one in model.encoder.named_parameters()}
    one_step(model, optimizer, 0)
    after = dict(model.encoder.named_parameters())
    assert not [key for key, one in after.items() if one.equal(before[key])]


@pytest.mark.parametrize("others", [(), ("hidden",)], ids=["units", "and hidden dimensions"])
def test_cut_run_heals_as_the_masked_one(
    others: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same run in float64, once cut at the stop and once masked to the end."""
    trained = []
    for cuts in (True, False):
        model = Network().double()
        pruner = with_importance(
            GateGradient(smoothing=0.9), [*GRANULARITIES, *others], fraction=0.5
        )
        pruner.prepare(model, model.encoder)
        optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0.1, eps=1e-4)
        driver = driver_of(pruner, optimizer)
        if not cuts:
            monkeypatch.setattr(pruner, "shrink", lambda _: False)
        for step in range(TOTAL_STEPS):
            one_step(model, optimizer, step)
        assert driver.was_cut == cuts == pruner.is_cut
        assert not others or not pruner.masks()["hidden"].all()
        trained.append(model(tokens()))
    torch.testing.assert_close(*trained, rtol=0, atol=1e-8)


def test_dropped_layer_is_resumed() -> None:
    case = Case(files()[0], (LAYERS,), fraction=0.5)
    straight = Run.fresh(case, seed=0)
    straight.train(range(10))
    saved = straight.save()
    resumed = Run.fresh(case, seed=1, saved=saved)
    for run in (straight, resumed):
        dropped = [one for one in run.model.modules() if isinstance(one, DroppedLayer)]
        assert len(dropped) == 1
        run.train(range(10, TOTAL_STEPS))
    assert resumed.bits() == straight.bits()


def test_state_saved_after_the_cut_is_loaded_twice() -> None:
    # As a run does that was resumed after the cut, and takes its best weights in the end.
    case = Case(files()[0], GRANULARITIES)
    straight = Run.fresh(case, seed=0)
    straight.train(range(10))
    saved = straight.save()
    resumed = Run.fresh(case, seed=1, saved=saved)
    resumed.train(range(10, TOTAL_STEPS))
    resumed.model.load_state_dict(torch.load(io.BytesIO(saved))[0])
    assert resumed.bits() == straight.bits()


def test_part_of_a_state_is_loaded_without_a_cut() -> None:
    model, pruner = Case(files()[0]).prepared()
    head = {f"head.{key}": one for key, one in nn.Linear(HIDDEN, 3).state_dict().items()}
    model.load_state_dict(head, strict=False)
    assert not pruner.is_cut
    assert torch.equal(model.head.weight, head["head.weight"])


def test_resuming_needs_the_encoder_anywhere_in_the_model() -> None:
    case = Case(files()[0])
    straight = Run.fresh(case, seed=0)
    straight.train(range(10))
    saved = straight.model.encoder.state_dict()
    alone, pruner = tiny_encoder("bert", dtype=torch.float32, seed=1), case.pruner()
    pruner.prepare(alone)
    alone.load_state_dict(saved)
    assert pruner.is_cut
    batch = tokens()
    states = alone(**batch).last_hidden_state
    assert torch.equal(states, straight.model.encoder(**batch).last_hidden_state)


def test_full_budget_cuts_nothing() -> None:
    model = Network()
    pruner = Structured(budget=FullBudget(), importance=WeightMagnitude())
    pruner.prepare(model, model.encoder)
    assert pruner.excess == 0
    pruner.prune(1.0)
    assert not pruner.shrink()
    pruner.finalize()
    assert shapes_of(model.encoder) == {}
    assert pruner.ledger().kept == pruner.ledger().dense
    assert_same(model.state_dict(), Network().state_dict())


def test_pruned_encoder_is_pruned_further() -> None:
    model = Network("mpnet")
    for fraction, name in ((0.8, "first"), (0.6, "second")):
        pruner = with_importance(RandomImportance(), fraction=fraction)
        pruner.prepare(model, model.encoder)
        dense = linear_weights(model.encoder)
        pruner.prune(1.0)
        before = model(tokens())
        pruner.finalize()
        torch.testing.assert_close(model(tokens()), before, rtol=1e-4, atol=1e-5, msg=name)
        assert linear_weights(model.encoder) <= fraction * dense


def measured(pruner: Structured) -> list[Scores]:
    return [pruner.importance.measure(layer, number) for number, layer in enumerate(pruner.layers)]


def test_importance_is_a_moving_average_over_steps() -> None:
    model = Network()
    pruner = with_importance(GateGradient(smoothing=0.75))
    pruner.prepare(model, model.encoder)
    expected = [dict.fromkeys(vars(one), torch.zeros(())) for one in measured(pruner)]
    optimizer = momentum(model.parameters())
    for step in range(3):
        optimizer.zero_grad()
        loss_of(model, step).backward()  # type: ignore[no-untyped-call]
        for average, one in zip(expected, measured(pruner), strict=True):
            for kind, score in vars(one).items():
                average[kind] = 0.75 * average[kind] + 0.25 * score
        pruner.before_step()
        optimizer.step()
        pruner.after_step()
    for average, one in zip(expected, pruner.absolute_scores(), strict=True):
        for kind, score in vars(one).items():
            torch.testing.assert_close(score, average[kind])


def test_gradients_of_what_is_pruned_do_not_count_in_clipping() -> None:
    model, pruner = Network(), with_importance(WeightMagnitude())
    pruner.prepare(model, model.encoder)
    pruner.prune(1.0)
    loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
    pruner.before_step()
    encoder: Any = model.encoder
    for layer, state in zip(encoder.encoder.layer, pruner.states, strict=True):
        gone = ~state.get_buffer("neurons_mask")
        assert gone.any()
        assert not layer.intermediate.dense.weight.grad[gone].any()
        assert not layer.output.dense.weight.grad[:, gone].any()
        assert layer.output.dense.weight.grad[:, ~gone].any()
