"""Wanda by hand, and what of a training is read for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from structured_world import Network, loss_of
from tiny_encoders import tokens
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multiprune.budget import CountBudget, FractionBudget
from multiprune.pruning.combined import Combined
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.groups import Rows
from multiprune.pruning.importance import WeightMagnitude
from multiprune.pruning.input_norms import SQUARES
from multiprune.pruning.ready import NotReadyError
from multiprune.pruning.schedule import LinearSchedule
from multiprune.pruning.structured import Structured
from multiprune.pruning.wanda import Wanda


def step(pruner: Wanda | Combined) -> None:
    pruner.before_step()
    pruner.after_step()


def layer_and_pruner(count: int, **options: Any) -> tuple[nn.Linear, Wanda]:
    """Make a layer of 2 x 3 weights."""
    layer = nn.Linear(3, 2)
    layer.weight.data = torch.tensor([[4.0, -1.0, 2.0], [-3.0, 0.5, 0.25]])
    pruner = Wanda(budget=CountBudget(count=count), **options)
    pruner.prepare(layer)
    return layer, pruner


def norms(pruner: Wanda, number: int = 0) -> Tensor:
    return pruner.input_norms(pruner.targets[number])


def test_small_weights_on_small_inputs_go_first() -> None:
    layer, pruner = layer_and_pruner(count=3)
    # Columns have the norms 5, 13 and 1 over two tokens; the scores are then
    # [[20, 13, 2], [15, 6.5, 0.25]], where the magnitudes are [[4, 1, 2], [3, 0.5, 0.25]].
    layer(torch.tensor([[[3.0, 5.0, 0.0], [4.0, -12.0, -1.0]]])).sum().backward()
    step(pruner)
    assert norms(pruner).tolist() == [5, 13, 1]
    pruner.prune(1.0)
    assert pruner.masks()["weight"].tolist() == [[True, True, False], [True, False, False]]


def test_rows_compare_the_weights_of_one_output() -> None:
    layer, pruner = layer_and_pruner(count=4, groups=Rows())
    layer(torch.tensor([[3.0, 5.0, 0.0], [4.0, -12.0, -1.0]])).sum().backward()
    step(pruner)
    pruner.prune(1.0)
    assert pruner.masks()["weight"].tolist() == [[True, True, False], [True, True, False]]


def prepared(fraction: float = 0.5) -> tuple[Network, Wanda]:
    model = Network().train()
    pruner = Wanda(budget=FractionBudget(fraction=fraction))
    pruner.prepare(model, model.encoder)
    return model, pruner


def read_by(model: Network, pruner: Wanda, *numbers: int) -> list[Tensor]:
    """Return the norms of what each layer reads of some batches, from the inputs themselves."""
    seen: dict[int, list[Tensor]] = {id(target.module): [] for target in pruner.targets}
    handles = [
        target.module.register_forward_pre_hook(
            lambda module, inputs: seen[id(module)].append(inputs[0])
        )
        for target in pruner.targets
    ]
    with torch.no_grad():
        for number in numbers:
            model(tokens(number))
    for handle in handles:
        handle.remove()
    found = (torch.cat([one.flatten(0, -2) for one in rows]) for rows in seen.values())
    return [torch.linalg.vector_norm(one.double(), dim=0).float() for one in found]


def assert_norms(pruner: Wanda, expected: list[Tensor]) -> None:
    assert any(not one.eq(1).all() for one in expected)
    for target, norm in zip(pruner.targets, expected, strict=True):
        torch.testing.assert_close(pruner.input_norms(target).to(norm), norm, msg=target.path)


def backward(model: Network, number: int) -> None:
    loss_of(model, number).backward()  # type: ignore[no-untyped-call]


def test_norms_are_those_of_all_that_was_trained_on() -> None:
    model, pruner = prepared()
    expected = read_by(model, pruner, 0, 1, 2)
    for numbers in ((0, 1), (2,)):  # two batches in one step
        for number in numbers:
            backward(model, number)
        step(pruner)
    assert_norms(pruner, expected)


def test_passes_that_are_not_trained_on_do_not_count() -> None:
    model, pruner = prepared()
    expected = read_by(model, pruner, 0)
    model.eval()
    backward(model, 3)
    model.train()
    with torch.no_grad():
        model(tokens(4))
    model(tokens(5))  # nothing is differentiated
    backward(model, 0)
    step(pruner)
    assert_norms(pruner, expected)


def test_step_that_is_skipped_and_passes_of_a_search_leave_no_trace() -> None:
    model, pruner = prepared()
    expected = read_by(model, pruner, 0)
    backward(model, 1)
    pruner.before_step()
    pruner.skip_step()
    backward(model, 2)
    pruner.forget_passes()
    backward(model, 0)
    step(pruner)
    assert_norms(pruner, expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_pass_that_is_run_again_for_its_gradients_counts_once(reentrant: bool) -> None:
    layer, pruner = layer_and_pruner(count=3)
    inputs = torch.tensor([[3.0, 5.0, 0.0], [4.0, -12.0, -1.0]], requires_grad=True)
    checkpoint(layer, inputs, use_reentrant=reentrant).sum().backward()
    step(pruner)
    assert norms(pruner).tolist() == [5, 13, 1]


def test_graph_that_is_differentiated_twice_counts_once() -> None:
    layer, pruner = layer_and_pruner(count=3)
    outputs = layer(torch.tensor([[3.0, 5.0, 0.0], [4.0, -12.0, -1.0]]))
    outputs.sum().backward(retain_graph=True)
    outputs.square().sum().backward()
    step(pruner)
    assert norms(pruner).tolist() == [5, 13, 1]


@pytest.mark.parametrize("is_frozen", [False, True])
def test_frozen_layer_is_read_too(is_frozen: bool) -> None:
    layer, pruner = layer_and_pruner(count=3)
    layer.requires_grad_(not is_frozen)
    head = nn.Linear(2, 1)
    head(layer(torch.tensor([[3.0, 5.0, 0.0], [4.0, -12.0, -1.0]]))).sum().backward()
    step(pruner)
    assert norms(pruner).tolist() == [5, 13, 1]


def test_layer_that_reads_nothing_goes_by_magnitude() -> None:
    layer, pruner = layer_and_pruner(count=3)
    step(pruner)
    assert torch.equal(pruner.scores()[0], layer.weight.abs())


def test_squares_of_half_precision_do_not_overflow() -> None:
    layer, pruner = layer_and_pruner(count=3)
    inputs = torch.tensor([[300.0, 0.5, 0.0], [400.0, 0.0, 1.0]])
    with torch.autocast("cpu", torch.float16):
        layer(inputs.half()).sum().backward()
    step(pruner)
    assert norms(pruner).tolist() == [500, 0.5, 1]


def test_weight_of_several_layers_has_the_inputs_of_all() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    model[0].weight.data = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    pruner = Wanda(budget=CountBudget(count=2))
    pruner.prepare(model)
    model(torch.tensor([[3.0, 4.0]])).sum().backward()
    step(pruner)
    assert norms(pruner).tolist() == [5, 5]


def test_examples_of_all_processes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pruner = prepared()
    expected = read_by(model, pruner, 0)
    distributed = torch.distributed

    def all_reduce(flat: Tensor) -> None:
        flat *= 4  # three others have seen the same

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 4)
    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    backward(model, 0)
    step(pruner)
    assert_norms(pruner, [2 * one for one in expected])


def test_nothing_is_read_once_the_schedule_has_ended_and_nothing_is_left_behind() -> None:
    model, pruner = prepared()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    schedule = LinearSchedule(start=0.0, stop=0.5)
    GradualPruning(pruner, schedule, total_steps=4, every_n_steps=1).attach(optimizer)
    sums = []
    for number in range(4):
        backward(model, number)
        optimizer.step()
        sums.append(pruner.targets[0].buffer(SQUARES).clone())
    assert not torch.equal(sums[0], sums[1])
    assert torch.equal(sums[1], sums[2])
    assert torch.equal(sums[1], sums[3])
    pruner.finalize()
    assert list(model.state_dict()) == list(Network().state_dict())
    assert not any(module._forward_hooks for module in model.modules())


def test_units_and_then_weights_by_their_inputs() -> None:
    model = Network().train()
    pruner = Combined(
        budget=FractionBudget(fraction=0.4),
        structured=lambda budget: Structured(budget=budget, importance=WeightMagnitude()),
        element_wise=lambda budget: Wanda(budget=budget),
    )
    pruner.prepare(model, model.encoder)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    schedule = LinearSchedule(start=0.0, stop=0.5)
    driver = GradualPruning(pruner, schedule, total_steps=6, every_n_steps=1)
    driver.attach(optimizer)
    for number in range(6):
        optimizer.zero_grad()
        backward(model, number)
        optimizer.step()
    assert driver.was_cut
    assert isinstance(pruner.element_wise, Wanda)
    assert not any(norm.eq(1).all() for norm in map(norms, [pruner.element_wise] * 2, range(2)))
    pruner.finalize()
    assert not any(module._forward_hooks for module in model.modules())


def test_parts_without_inputs_are_refused() -> None:
    budget = FractionBudget(fraction=0.5, of="encoder")
    pruner = Wanda(budget=budget, parts=("encoder_linear", "embeddings"))
    model = Network()
    with pytest.raises(ValueError, match=r"word_embeddings\.weight is the weight of none: leave"):
        pruner.prepare(model, model.encoder)


def test_sums_of_few_bits_are_refused() -> None:
    model, pruner = prepared()
    pruner.check_ready()
    model.half()
    with pytest.raises(NotReadyError, match=r"cast to float16 with: cast it before pruner\.prep"):
        pruner.check_ready()
