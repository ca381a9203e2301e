"""A parameter that is cut takes along what the optimizer remembers of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from multiprune.models.cut import cut_parameter, forget, resize_parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OPTIMIZERS: dict[str, Callable[[Iterable[Tensor]], Optimizer]] = {
    "adamw": lambda parameters: AdamW(parameters, lr=0.1, weight_decay=0.1),
    "amsgrad": lambda parameters: AdamW(parameters, lr=0.1, amsgrad=True),
    "momentum": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 2)
        self.double()

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.second(self.first(features))
        return outputs


def loss_of(model: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    loss: Tensor = model(features).square().sum()
    return loss


def step(model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def owned(optimizer: Optimizer) -> list[int]:
    return [id(one) for group in optimizer.param_groups for one in group["params"]]


def cut_neurons(model: Network, index: Tensor, optimizer: Optimizer | None) -> None:
    cut_parameter(model.first, "weight", 0, index, optimizer)
    cut_parameter(model.first, "bias", 0, index, optimizer)
    cut_parameter(model.second, "weight", 1, index, optimizer)


@every_optimizer
def test_values_and_moments_are_those_of_the_entries_kept(
    make: Callable[[Iterable[Tensor]], Optimizer],
) -> None:
    model = Network()
    optimizer = make(model.parameters())
    step(model, optimizer)
    step(model, optimizer)
    index = torch.tensor([4, 1, 2])
    weight = model.second.weight.detach().clone()
    state = dict(optimizer.state[model.second.weight])
    moments = {key: one.clone() for key, one in state.items() if isinstance(one, Tensor)}
    assert any(one.shape == weight.shape for one in moments.values())

    cut_parameter(model.second, "weight", 1, index, optimizer)
    assert torch.equal(model.second.weight, weight[:, [4, 1, 2]])
    cut = optimizer.state[model.second.weight]
    assert cut.keys() == state.keys()
    for key, old in moments.items():
        assert torch.equal(cut[key], old[:, [4, 1, 2]] if old.dim() else old)


@every_optimizer
def test_next_step_is_that_of_the_model_whose_other_neurons_are_held_at_zero(
    make: Callable[[Iterable[Tensor]], Optimizer],
) -> None:
    cut, masked = Network(), Network()
    index = torch.tensor([0, 3])
    gone = torch.tensor([1, 2, 4])
    optimizers = [make(cut.parameters()), make(masked.parameters())]
    for model, optimizer in zip((cut, masked), optimizers, strict=True):
        step(model, optimizer)
        with torch.no_grad():
            model.first.weight[gone] = 0
            model.first.bias[gone] = 0
            model.second.weight[:, gone] = 0
    cut_neurons(cut, index, optimizers[0])
    assert loss_of(cut).item() == pytest.approx(loss_of(masked).item(), rel=1e-12)
    step(cut, optimizers[0])
    step(masked, optimizers[1])
    for actual, expected in (
        (cut.first.weight, masked.first.weight[index]),
        (cut.first.bias, masked.first.bias[index]),
        (cut.second.weight, masked.second.weight[:, index]),
        (cut.second.bias, masked.second.bias),
    ):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_optimizer_owns_exactly_the_parameters_of_the_model_in_their_order() -> None:
    model = Network()
    groups = [
        {"params": [model.first.weight, model.second.weight], "weight_decay": 0.5},
        {"params": [model.first.bias, model.second.bias], "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, lr=0.1)
    step(model, optimizer)
    cut_neurons(model, torch.tensor([1, 2]), optimizer)
    expected = [model.first.weight, model.second.weight, model.first.bias, model.second.bias]
    assert owned(optimizer) == [id(one) for one in expected]
    assert {id(one) for one in optimizer.state} == {id(one) for one in model.parameters()}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]


def test_optimizer_that_has_not_moved_yet_has_nothing_to_cut() -> None:
    model = Network()
    optimizer = AdamW(model.parameters())
    cut_neurons(model, torch.tensor([1, 2]), optimizer)
    assert not optimizer.state
    assert owned(optimizer) == [id(one) for one in model.parameters()]
    step(model, optimizer)
    assert model.first.weight.shape == (2, 3)


def test_parameter_that_is_not_trained_stays_so() -> None:
    model = Network()
    model.first.weight.requires_grad_(False)
    cut_parameter(model.first, "weight", 0, torch.tensor([0]))
    assert not model.first.weight.requires_grad
    assert isinstance(model.first.weight, nn.Parameter)


def test_model_trains_on_while_an_earlier_loss_is_alive() -> None:
    model = Network()
    optimizer = AdamW(model.parameters(), lr=0.1)
    alive = loss_of(model)
    step(model, optimizer)
    cut_neurons(model, torch.tensor([0, 3, 4]), optimizer)
    step(model, optimizer)
    assert model.second.weight.grad is not None
    assert model.second.weight.grad.shape == model.second.weight.shape == (2, 3)
    assert alive.requires_grad


def test_resized_parameter_is_the_same_object() -> None:
    model = Network()
    optimizer = AdamW(model.parameters(), lr=0.1)
    parameter = model.second.weight
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    resize_parameter(model.second, "weight", 1, 3)
    assert model.second.weight is parameter
    assert parameter.shape == (2, 3)
    assert parameter.grad is None
    assert parameter.dtype == torch.float64
    assert owned(optimizer) == [id(one) for one in model.parameters()]
    model.second.load_state_dict({"weight": torch.ones(2, 3), "bias": torch.zeros(2)})
    assert torch.equal(parameter, torch.ones(2, 3))


def test_resized_model_trains() -> None:
    model = Network()
    optimizer = AdamW(model.parameters(), lr=0.1)
    for module, name, dim in (
        (model.first, "weight", 0),
        (model.first, "bias", 0),
        (model.second, "weight", 1),
    ):
        resize_parameter(module, name, dim, 3)
        nn.init.ones_(module.get_parameter(name))
    step(model, optimizer)
    assert optimizer.state[model.second.weight]["exp_avg"].shape == (2, 3)


def test_forgotten_parameters_leave_groups_and_state() -> None:
    model = Network()
    optimizer = AdamW(model.parameters(), lr=0.1)
    step(model, optimizer)
    gone = list(model.first.parameters())
    forget(gone, optimizer)
    assert owned(optimizer) == [id(one) for one in model.second.parameters()]
    assert {id(one) for one in optimizer.state} == {id(one) for one in model.second.parameters()}
    before = [one.clone() for one in gone]
    step(model, optimizer)
    assert all(torch.equal(one, old) for one, old in zip(gone, before, strict=True))


def test_forgetting_without_an_optimizer_or_twice_does_nothing() -> None:
    model = Network()
    optimizer = AdamW(model.parameters(), lr=0.1)
    gone = [next(model.parameters())]
    forget(gone, None)
    assert len(owned(optimizer)) == 4
    forget(gone, optimizer)
    forget(gone, optimizer)
    assert len(owned(optimizer)) == 3


def test_buffers_with_a_dimension_of_tasks_are_cut_and_resized_along() -> None:
    model, scores = Network(), torch.arange(30.0).view(2, 5, 3)
    model.first.register_buffer("weight_scores", scores)
    index = torch.tensor([0, 3])
    cut_parameter(model.first, "weight", 0, index)
    assert torch.equal(model.first.get_buffer("weight_scores"), scores[:, index])
    resize_parameter(model.first, "weight", 1, 2)
    assert model.first.get_buffer("weight_scores").shape == (2, 2, 2)
