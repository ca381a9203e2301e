"""Hard concrete gates, against autograd, frequencies, and arithmetic by hand."""

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam

from multiprune.pruning.gates import Gates
from multiprune.pruning.hard_concrete import (
    estimated_gates,
    gate_gradient,
    lagrangian,
    lagrangian_multipliers_gradient,
    lagrangian_size_derivative,
    open_probability,
    sample_derivative,
    sampled_gates,
    uniform_noise,
)

LOG_ALPHA = torch.linspace(-6, 6, 25, dtype=torch.float64)


def noise(size: int, count: int = 1) -> Tensor:
    return uniform_noise(torch.empty(count, size, dtype=torch.float64), seed=3, step=0)


@pytest.mark.parametrize(("u", "gate"), [(0.5, 0.5), (0.9999, 1.0), (0.0001, 0.0)])
def test_sampled_gate_of_an_even_chance(u: float, gate: float) -> None:
    sampled = sampled_gates(torch.zeros(1), torch.tensor([u]))
    assert torch.allclose(sampled, torch.tensor([gate]))


def test_sampled_gate_by_hand() -> None:
    # alpha = 2, u = 1/4: the concrete is 1 / (1 + (3 / 2)^1.5).
    concrete = 1 / (1 + 1.5**1.5)
    sampled = sampled_gates(torch.tensor([math.log(2)]).double(), torch.tensor([0.25]).double())
    assert sampled.item() == pytest.approx(1.2 * concrete - 0.1)


@pytest.mark.parametrize(("alpha", "gate"), [(1.0, 0.5), (3.0, 0.8), (11.0, 1.0), (0.09, 0.0)])
def test_estimated_gate_by_hand(alpha: float, gate: float) -> None:
    # The logistic function of log alpha is alpha / (1 + alpha).
    assert estimated_gates(torch.tensor(math.log(alpha))).item() == pytest.approx(gate, abs=1e-6)


def test_open_probability_is_the_frequency_of_gates_above_zero() -> None:
    draws = 40_000
    gates = sampled_gates(LOG_ALPHA.expand(draws, -1), noise(len(LOG_ALPHA), draws))
    frequency = (gates > 0).double().mean(0)
    probability = open_probability(LOG_ALPHA)
    deviation = (probability * (1 - probability) / draws).sqrt()
    assert ((frequency - probability).abs() <= 4 * deviation + 1e-4).all()


def test_open_and_full_gates_are_equally_likely_at_even_odds() -> None:
    # The distribution is symmetric around 1/2: P(z = 0) at log alpha is P(z = 1) at -log alpha.
    gates = sampled_gates(torch.zeros(40_000, 1).double(), noise(1, 40_000))
    closed, whole = (int((gates == end).sum()) for end in (0, 1))
    assert closed == pytest.approx(whole, abs=400)


def test_derivatives_are_those_of_autograd() -> None:
    log_alpha = LOG_ALPHA.clone().requires_grad_()
    gates = sampled_gates(log_alpha, noise(len(LOG_ALPHA))[0])
    gates.sum().backward()  # type: ignore[no-untyped-call]
    derivative = sample_derivative(gates.detach())
    assert log_alpha.grad is not None
    assert torch.allclose(derivative, log_alpha.grad, rtol=0, atol=1e-12)
    clipped = (gates == 0) | (gates == 1)
    assert clipped.any()
    assert not clipped.all()
    assert torch.equal(derivative == 0, clipped)


@pytest.mark.parametrize("width", [1, 2])
def test_gradient_of_gates_is_read_from_the_weight(width: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 4 * width, dtype=torch.float64, requires_grad=True)
    gates = torch.tensor([0.0, 0.3, 1.0, 0.8], dtype=torch.float64, requires_grad=True)
    states = torch.randn(7, 4 * width, dtype=torch.float64)
    outputs = (states * gates.repeat_interleave(width)) @ weight.T
    (outputs**3).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert gates.grad is not None
    read = gate_gradient(weight.detach(), weight.grad, gates.detach())
    expected = gates.grad * torch.tensor([0, 1, 0, 1])
    assert torch.allclose(read, expected, rtol=1e-10)


def test_lagrangian_by_hand_and_by_autograd() -> None:
    size = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    multipliers = torch.tensor([2.0, 5.0], dtype=torch.float64, requires_grad=True)
    target = torch.tensor(0.5, dtype=torch.float64)
    value = lagrangian(size, target, multipliers)
    assert value.item() == pytest.approx(2 * 0.2 + 5 * 0.04)
    value.backward()  # type: ignore[no-untyped-call]
    arguments = size.detach(), target
    assert size.grad is not None
    assert multipliers.grad is not None
    slope = lagrangian_size_derivative(*arguments, multipliers.detach())
    assert torch.allclose(slope, size.grad)
    assert torch.allclose(lagrangian_multipliers_gradient(*arguments), multipliers.grad)


def test_noise_depends_on_seed_and_step_alone() -> None:
    like = torch.empty(1000)
    first = uniform_noise(like, seed=1, step=2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(uniform_noise(like, seed=1, step=2), first)
    assert torch.equal(torch.get_rng_state(), state)
    for seed, step in [(2, 2), (1, 3), (2, 1)]:
        assert not torch.equal(uniform_noise(like, seed=seed, step=step), first)
    assert first.min() > 0
    assert first.max() < 1
    assert first.mean() == pytest.approx(0.5, abs=0.05)


COUNTS, COSTS = [3, 2], [0.1, 0.35]


def weighted(probabilities: Sequence[Tensor]) -> Tensor:
    return probabilities[0].sum() * COSTS[0] + probabilities[1].sum() * COSTS[1]


def interacting(probabilities: Sequence[Tensor]) -> Tensor:
    """Two structures, one within the other: what is inside counts as far as both are open."""
    return (probabilities[0].sum() * probabilities[1]).sum()


def gates_in(module: nn.Module, **settings: float) -> Gates:
    options = {"drop_rate": 0.2, "learning_rate": 0.05, "multiplier_learning_rate": 0.1} | settings
    gates = Gates(**options, seed=1, evaluation=None)
    gates.add_to(module, COUNTS, weighted)
    return gates


def module_of_doubles() -> nn.Module:
    return nn.Linear(2, 2, dtype=torch.float64)


def test_gates_start_at_the_drop_rate() -> None:
    gates = gates_in(module_of_doubles())
    # log((1 - 0.2) / 0.2) = log 4; P(z != 0) = 1 / (1 + 1 / (4 * 11^(2/3))).
    probability = 1 / (1 + 1 / (4 * 11 ** (2 / 3)))
    assert [log_alpha.exp().tolist() for log_alpha in gates.log_alpha()] == [
        pytest.approx([4.0] * count) for count in COUNTS
    ]
    assert gates.expected_size().item() == pytest.approx(probability)  # 3 * 0.1 + 2 * 0.35 = 1
    assert not gates.learning


def loss_gradient(gates: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of ``sum_j (j - 2) z_j^2``."""
    flat = torch.cat(list(gates))
    slope = 2 * flat * torch.arange(-2, len(flat) - 2)
    return list(torch.split(slope, COUNTS))


@pytest.mark.parametrize("size_of", [weighted, interacting])
def test_steps_are_those_of_autograd_and_adam(size_of: object) -> None:
    assert callable(size_of)
    module = module_of_doubles()
    gates = Gates(drop_rate=0.2, learning_rate=0.05, multiplier_learning_rate=0.1, seed=1)
    gates.add_to(module, COUNTS, size_of)
    gates.set_target(0.4)
    gates.start()
    log_alpha = torch.cat(gates.log_alpha()).clone().requires_grad_()
    multipliers = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizers = [
        Adam([log_alpha], lr=0.05, eps=1e-15),
        Adam([multipliers], lr=0.1, eps=1e-15, maximize=True),
    ]
    for step in range(5):
        sampled = gates.sampled()
        gates.update(sampled, loss_gradient(sampled))

        z = sampled_gates(log_alpha, uniform_noise(log_alpha, seed=1, step=step))
        size = size_of(torch.split(open_probability(log_alpha), COUNTS))
        loss = (torch.arange(-2, 3) * z**2).sum()
        loss = loss + lagrangian(size, torch.tensor(0.4).double(), multipliers)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
        assert torch.allclose(torch.cat(gates.log_alpha()), log_alpha, rtol=1e-9)
        assert torch.allclose(module.get_buffer("gates_multipliers"), multipliers, rtol=1e-9)


def test_scale_of_the_learning_rate_is_that_of_the_first_step() -> None:
    # Adam's first step is the learning rate, whatever the gradient.
    gates = gates_in(module_of_doubles())
    before = torch.cat(gates.log_alpha()).clone()
    gates.set_target(0.1)
    gates.update(gates.sampled(), [torch.full((count,), 2.0) for count in COUNTS], scale=0.5)
    moved = torch.cat(gates.log_alpha()) - before
    assert moved.abs().max().item() == pytest.approx(0.025)


@pytest.mark.parametrize("target", [0.2, 0.6])
def test_expected_size_converges_to_the_target_and_costly_gates_go(target: float) -> None:
    gates = gates_in(module_of_doubles())
    gates.set_target(target)
    for _ in range(600):
        sampled = gates.sampled()
        gates.update(sampled, [torch.full_like(gate, -0.1) for gate in sampled])
    assert gates.expected_size().item() == pytest.approx(target, abs=0.03)
    cheap, costly = gates.log_alpha()
    assert cheap.mean() > costly.mean()


def test_all_state_is_in_the_state_dict() -> None:
    straight, restored = module_of_doubles(), module_of_doubles()
    first, second = gates_in(straight), gates_in(restored)
    first.start()
    first.set_target(0.3)

    def train(gates: Gates, steps: int) -> None:
        for _ in range(steps):
            sampled = gates.sampled()
            gates.update(sampled, loss_gradient(sampled))

    train(first, 3)
    saved = copy.deepcopy(straight.state_dict())
    train(first, 3)
    restored.load_state_dict(saved)
    assert second.learning
    train(second, 3)
    assert torch.equal(torch.cat(first.log_alpha()), torch.cat(second.log_alpha()))


def test_removed_gates_leave_nothing() -> None:
    module = module_of_doubles()
    before = list(module.state_dict())
    gates_in(module).remove()
    assert list(module.state_dict()) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("drop_rate", 0.0),
        ("drop_rate", 1.0),
        ("learning_rate", 0.0),
        ("multiplier_learning_rate", -1.0),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        gates_in(module_of_doubles(), **{name: value})
