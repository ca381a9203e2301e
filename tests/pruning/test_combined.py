"""Structures first, single weights of what is left second: one budget, met to the weight."""

from __future__ import annotations

import copy
import io
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from structured_world import (
    ALL_FILES,
    HEAD,
    STOP_STEP,
    TOTAL_STEPS,
    WEIGHTS,
    Network,
    adamw,
    assert_same,
    driver_of,
    linear_weights,
    nonzero_weights,
    one_step,
    snapshot,
)
from tiers import slow
from tiny_encoders import tokens

from multiprune.budget import CountBudget, FractionBudget
from multiprune.models.shrink import shapes_of
from multiprune.pruning.combined import Combined
from multiprune.pruning.dynamic_sparsification import DynamicSparsification
from multiprune.pruning.importance import WeightMagnitude
from multiprune.pruning.magnitude import Magnitude
from multiprune.pruning.movement import Movement
from multiprune.pruning.structured import Structured
from multiprune.pruning.structured_l0 import StructuredL0

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

    from multiprune.pruning.element_wise import ElementWisePruner
    from multiprune.pruning.units import UnitPruner

STRUCTURED: dict[str, Callable[..., UnitPruner]] = {
    "magnitude": partial(Structured, importance=WeightMagnitude()),
    "layers": partial(
        Structured, importance=WeightMagnitude(), granularity=("heads", "neurons", "layers")
    ),
    "gates": partial(
        StructuredL0,
        drop_rate=0.05,
        gate_learning_rate=0.1,
        multiplier_learning_rate=0.1,
        granularity=("heads", "neurons"),
    ),
}
ELEMENT_WISE: dict[str, Callable[..., ElementWisePruner]] = {
    "magnitude": Magnitude,
    "movement": partial(Movement, score_learning_rate=0.01),
}
every_combination = pytest.mark.parametrize(
    ("structured", "element_wise"),
    [(first, second) for first in STRUCTURED for second in ELEMENT_WISE],
)

FRACTION = 0.25
ASKED = WEIGHTS // 4
# A quarter is a half of a half.
BETWEEN = WEIGHTS // 2


def combined(structured: str = "magnitude", element_wise: str = "magnitude") -> Combined:
    return Combined(
        budget=FractionBudget(fraction=FRACTION),
        structured=STRUCTURED[structured],
        element_wise=ELEMENT_WISE[element_wise],
    )


def trained(pruner: Combined, steps: int) -> tuple[Network, Optimizer]:
    model = Network()
    pruner.prepare(model, model.encoder)
    optimizer = adamw(model.parameters())
    driver_of(pruner, optimizer)
    for step in range(steps):
        one_step(model, optimizer, step)
    return model, optimizer


def test_file_of_the_configuration_makes_it() -> None:
    file = ALL_FILES[0].with_name("combined.yaml")
    pruner = instantiate(OmegaConf.load(file), budget=FractionBudget(fraction=FRACTION))
    assert isinstance(pruner, Combined)
    assert trained(pruner, STOP_STEP)[0].encoder
    assert pruner.ledger().kept_in("encoder_linear") == ASKED


def test_network_of_many_sizes_is_refused() -> None:
    dynamic = partial(DynamicSparsification, importance=WeightMagnitude())
    model = Network()
    pruner = Combined(
        budget=FractionBudget(fraction=FRACTION),
        structured=dynamic,
        element_wise=ELEMENT_WISE["magnitude"],
    )
    with pytest.raises(ValueError, match="of one size, but dynamic sparsification trains many"):
        pruner.prepare(model, model.encoder)


def test_structures_have_gone_half_way_and_single_weights_go_then() -> None:
    model, pruner = Network(), combined()
    pruner.prepare(model, model.encoder)
    pruner.prune(0.0)
    assert nonzero_weights(model.encoder) == WEIGHTS
    pruner.prune(0.25)
    assert all(mask.all() for mask in pruner.element_wise.masks().values())
    assert BETWEEN < pruner.ledger().kept_in("encoder_linear") < 0.76 * WEIGHTS
    pruner.prune(0.5)
    units = pruner.structured.ledger().kept_in("encoder_linear")
    assert BETWEEN - HEAD < units <= BETWEEN
    assert nonzero_weights(model.encoder) == units == pruner.ledger().kept_in("encoder_linear")
    pruner.prune(1.0)
    assert pruner.structured.ledger().kept_in("encoder_linear") == units
    assert nonzero_weights(model.encoder) == ASKED == pruner.ledger().kept_in("encoder_linear")


@every_combination
def test_budget_is_met_to_the_weight_and_layers_are_cut(structured: str, element_wise: str) -> None:
    pruner = combined(structured, element_wise)
    model, _ = trained(pruner, TOTAL_STEPS)
    assert pruner.ledger().kept_in("encoder_linear") == ASKED
    largest_group = WEIGHTS // 2 if structured == "layers" else HEAD
    assert BETWEEN - largest_group < linear_weights(model.encoder) <= BETWEEN
    model.eval()
    logits = model(tokens())
    pruner.finalize()
    torch.testing.assert_close(model(tokens()), logits)
    assert nonzero_weights(model.encoder) == ASKED
    assert pruner.ledger().kept_in("encoder_linear") == ASKED
    assert model.state_dict().keys() <= Network().state_dict().keys()
    assert shapes_of(model.encoder).keys() & {"linear", "dropped"}


@every_combination
def test_cut_model_takes_the_step_that_the_masked_one_takes(
    structured: str, element_wise: str
) -> None:
    pruner = combined(structured, element_wise)
    model, optimizer = trained(pruner, STOP_STEP - 1)
    pruner.prune(1.0)
    masked, masked_pruner, masked_optimizer = copy.deepcopy((model, pruner, optimizer))
    assert pruner.shrink(optimizer)
    for step in range(STOP_STEP, STOP_STEP + 3):
        for one, its_pruner, its_optimizer in (
            (model, pruner, optimizer),
            (masked, masked_pruner, masked_optimizer),
        ):
            its_optimizer._optimizer_step_pre_hooks.clear()
            its_optimizer._optimizer_step_post_hooks.clear()
            its_optimizer.zero_grad()
            one(tokens(step)).square().mean().backward()
            its_pruner.before_step()
            its_optimizer.step()
            its_pruner.after_step()
        torch.testing.assert_close(model(tokens()), masked(tokens()), rtol=1e-4, atol=1e-5)
    assert linear_weights(model.encoder) < linear_weights(masked.encoder) == WEIGHTS


@pytest.mark.parametrize("saved_after", [2, 5, STOP_STEP, *slow(STOP_STEP + 1)])
@every_combination
def test_resumed_run_equals_straight_run_bit_for_bit(
    structured: str, element_wise: str, saved_after: int
) -> None:
    def run(saved: bytes | None = None) -> list[Any]:
        model, pruner = Network(seed=saved_after), combined(structured, element_wise)
        pruner.prepare(model, model.encoder)
        states = None if saved is None else torch.load(io.BytesIO(saved))
        if states is not None:
            model.load_state_dict(states[0])
        optimizer = adamw(model.parameters())
        driver_of(pruner, optimizer)
        if states is not None:
            optimizer.load_state_dict(states[1])
        return [model, optimizer]

    straight = run()
    for step in range(saved_after):
        one_step(straight[0], straight[1], step)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in straight], file)
    resumed = run(file.getvalue())
    for parts in (straight, resumed):
        for step in range(saved_after, TOTAL_STEPS):
            one_step(parts[0], parts[1], step)
    assert_same(resumed[0].state_dict(), straight[0].state_dict())


def test_skipped_step_changes_neither_weights_nor_state() -> None:
    pruner = combined()
    model, optimizer = trained(pruner, 7)
    before = snapshot(model)
    optimizer.zero_grad()
    (model(tokens()).sum() * torch.inf).backward()
    pruner.before_step()
    pruner.skip_step()
    assert_same(model.state_dict(), before)


def with_structured_budget(budget: Any) -> Combined:
    return Combined(
        budget=FractionBudget(fraction=FRACTION),
        structured=STRUCTURED["magnitude"],
        element_wise=Magnitude,
        structured_budget=budget,
    )


def test_structures_can_have_a_budget_of_their_own() -> None:
    pruner = with_structured_budget(FractionBudget(fraction=0.8))
    model, _ = trained(pruner, TOTAL_STEPS)
    assert 0.8 * WEIGHTS - HEAD < linear_weights(model.encoder) <= 0.8 * WEIGHTS
    assert nonzero_weights(model.encoder) == ASKED


def test_structured_budget_below_the_final_one_is_refused() -> None:
    model, pruner = Network(), with_structured_budget(FractionBudget(fraction=0.2))
    with pytest.raises(ValueError, match="must not be below the final one, but leaves 2,252 of"):
        pruner.prepare(model, model.encoder)


def test_budgets_that_count_different_things_are_refused() -> None:
    with pytest.raises(ValueError, match="but have total and encoder_linear"):
        with_structured_budget(CountBudget(count=5000, of="total"))
