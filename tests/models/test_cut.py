"""Cutting parameters in place, against a smaller parameter trained from the start."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from multiprune.models.cut import cut_parameter, replace_data

OPTIMIZERS: dict[str, Callable[[Iterable[Tensor]], Optimizer]] = {
    "adamw": lambda parameters: AdamW(parameters, lr=0.1, amsgrad=True),
    "fused": lambda parameters: Adam(parameters, lr=0.1, fused=True),
    "momentum": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9),
    "plain": lambda parameters: SGD(parameters, lr=0.1),
}


def matrix() -> nn.Parameter:
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(4, 3))


def step(parameter: nn.Parameter, optimizer: Optimizer) -> Tensor:
    """Take a step on a loss that is a sum over entries, so that no entry sees another."""
    optimizer.zero_grad()
    loss = (parameter**3).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("optimizer_of", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_cut_parameter_moves_on_as_its_entries_would_have(
    optimizer_of: Callable[[Iterable[Tensor]], Optimizer], dim: int
) -> None:
    index = torch.tensor([2, 0])
    whole, cut = matrix(), matrix()
    optimizers = optimizer_of([whole]), optimizer_of([cut])
    for parameter, optimizer in zip((whole, cut), optimizers, strict=True):
        for _ in range(2):
            step(parameter, optimizer)
    cut_parameter(cut, dim, index, optimizers[1])
    for parameter, optimizer in zip((whole, cut), optimizers, strict=True):
        for _ in range(3):
            step(parameter, optimizer)
    # Fused kernels round by an entry's place in memory.
    assert torch.allclose(cut, whole.index_select(dim, index), rtol=1e-6)
    assert optimizers[1].param_groups[0]["params"][0] is cut


def test_gradient_is_dropped_and_a_loss_still_alive_does_no_harm() -> None:
    parameter = matrix()
    optimizer = SGD([parameter], lr=0.1)
    kept_alive = step(parameter, optimizer)
    cut_parameter(parameter, 0, torch.tensor([1]), None)
    assert parameter.grad is None
    assert parameter.requires_grad
    step(parameter, optimizer)
    assert parameter.grad is not None
    assert parameter.grad.shape == (1, 3)
    assert kept_alive.grad_fn is not None


def test_parameter_that_the_optimizer_does_not_know_adds_no_state() -> None:
    parameter, other = matrix(), matrix()
    optimizer = AdamW([other])
    cut_parameter(parameter, 1, torch.tensor([0]), optimizer)
    assert parameter.shape == (4, 1)
    assert not optimizer.state


def test_vector_of_moments_that_counts_steps_is_left_alone() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = AdamW([parameter])
    step(parameter, optimizer)
    cut_parameter(parameter, 0, torch.tensor([0, 1]), optimizer)
    assert optimizer.state[parameter]["step"] == 1
    assert optimizer.state[parameter]["exp_avg"].shape == (2,)


def test_replaced_data_may_have_any_shape_and_frozen_stays_frozen() -> None:
    parameter = nn.Parameter(torch.ones(3, dtype=torch.float64), requires_grad=False)
    replace_data(parameter, torch.zeros(2, 2, dtype=torch.float64))
    assert torch.equal(parameter, torch.zeros(2, 2, dtype=torch.float64))
    assert not parameter.requires_grad
