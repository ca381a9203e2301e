"""Gates of ranks against autograd, scores of ranks against the loss itself."""

import copy
from itertools import pairwise

import pytest
import torch
from rank_world import Network, backward, loss_of, states
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from multiprune.budget import CountBudget, FractionBudget, FullBudget
from multiprune.pruning.low_rank import LowRankGradual, LowRankL0, in_order_of_closing
from multiprune.pruning.ranks import RankPruner


def with_gates(drop_rate: float = 0.3) -> tuple[Network, LowRankL0]:
    model = Network()
    pruner = LowRankL0(
        budget=FractionBudget(fraction=0.5),
        drop_rate=drop_rate,
        gate_learning_rate=0.1,
        multiplier_learning_rate=0.1,
    )
    pruner.prepare(model)
    return model, pruner


def step(model: Network, pruner: RankPruner, optimizer: AdamW, seed: int) -> None:
    optimizer.zero_grad()
    backward(model, seed)
    pruner.before_step()
    optimizer.step()
    pruner.after_step()


def gates_of(pruner: RankPruner) -> list[Tensor]:
    gates = [target.layer.gate for target in pruner.targets]
    return [gate for gate in gates if gate is not None]


def copies_of_gates(pruner: RankPruner) -> list[Tensor]:
    return [gate.clone() for gate in gates_of(pruner)]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_gates_stay_1_and_learn_nothing_before_pruning_begins() -> None:
    model, pruner = with_gates()
    dense = Network()
    optimizer = AdamW(model.parameters())
    assert torch.allclose(model(states()), dense(states()), rtol=0, atol=1e-12)
    log_alpha = torch.cat(pruner.gates.log_alpha()).clone()
    for seed in range(3):
        step(model, pruner, optimizer, seed)
        pruner.prune(0.0)
    assert all((gate == 1).all() for gate in gates_of(pruner))
    assert torch.equal(torch.cat(pruner.gates.log_alpha()), log_alpha)


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_gradient_of_the_gates_is_that_of_autograd(micro_batches: int) -> None:
    model, pruner = with_gates()
    pruner.prune(0.2)
    watched, seen = copy.deepcopy((model, pruner))
    gates = [gate.requires_grad_() for gate in gates_of(seen)]
    updates = []
    pruner.gates.update = lambda *arguments: updates.append(arguments)  # type: ignore[method-assign]
    for seed in range(micro_batches):
        backward(model, seed)
        backward(watched, seed)
    pruner.before_step(0.7)
    pruner.after_step()
    ((sampled, read, scale),) = updates
    assert scale == 0.7
    clipped = 0
    for gate, value, gradient in zip(gates, sampled, read, strict=True):
        assert torch.equal(gate, value)
        assert gate.grad is not None
        within = (value > 0) & (value < 1)
        clipped += int((~within).sum())
        assert torch.allclose(gradient, gate.grad * within, rtol=1e-9, atol=1e-15)
    assert 0 < clipped < 11


def test_gates_change_with_every_step_and_only_then() -> None:
    model, pruner = with_gates()
    pruner.prune(0.2)
    optimizer = AdamW(model.parameters())
    before = copies_of_gates(pruner)
    backward(model)
    pruner.prune(0.3)
    pruner.before_step()
    pruner.skip_step()
    assert same(gates_of(pruner), before)
    step(model, pruner, optimizer, 0)
    assert not same(gates_of(pruner), before)


def test_training_is_random_and_evaluation_is_not() -> None:
    model, pruner = with_gates()
    pruner.prune(0.2)
    training = model(states())
    evaluation = model.eval()(states())
    assert not torch.allclose(training, evaluation)
    # alpha = 0.7 / 0.3, so that a gate is 1.2 * 0.7 - 0.1 = 0.74.
    for target in pruner.targets:
        target.layer.remove_gates()
        target.layer.up.weight.data.mul_(0.74)
    assert torch.allclose(model(states()), evaluation, rtol=0, atol=1e-12)


def test_target_goes_from_the_expected_start_to_the_budget() -> None:
    model, pruner = with_gates()
    start = float(pruner.gates.expected_size())
    # 6 ranks of 14 and 5 of 13 parameters, each open with the same probability, of 88.
    alpha = 0.7 / 0.3
    assert start == pytest.approx((6 * 14 + 5 * 13) / 88 / (1 + 1 / (alpha * 11 ** (2 / 3))))
    for amount in (0.25, 0.5):
        pruner.prune(amount)
        expected = start + amount * (44 / 88 - start)
        assert model.get_buffer("gates_target").item() == pytest.approx(expected)


def test_expected_size_follows_its_target_and_the_needed_ranks_survive() -> None:
    """The inputs have nothing in the directions of the three largest singular values."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8)).double()
    left, _, right = torch.linalg.svd(model[0].weight.data)
    values = torch.tensor([4.0, 3.5, 3.0, 2.0, 1.8, 1.6, 0.1, 0.05], dtype=torch.float64)
    model[0].weight.data = left * values @ right
    teacher = copy.deepcopy(model)
    pruner = LowRankL0(
        budget=CountBudget(count=3 * 16),
        drop_rate=0.05,
        gate_learning_rate=0.1,
        multiplier_learning_rate=0.1,
    )
    pruner.prepare(model)
    optimizer = AdamW(model.parameters(), lr=0.001)
    generator = torch.Generator().manual_seed(0)
    for number in range(300):
        pruner.prune(min(0.999, (number + 1) / 150))
        inputs = torch.randn(16, 5, dtype=torch.float64, generator=generator) @ right[3:]
        optimizer.zero_grad()
        (model(inputs) - teacher(inputs).detach()).square().mean().backward()
        pruner.before_step()
        optimizer.step()
        pruner.after_step()
    assert pruner.gates.expected_size().item() == pytest.approx(48 / 64, abs=0.06)
    pruner.prune(1.0)
    assert pruner.masks()["0.ranks"].nonzero()[:, 0].tolist() == [3, 4, 5]


def test_gates_are_folded_into_the_weights_at_the_end() -> None:
    model, pruner = with_gates()
    optimizer = AdamW(model.parameters(), lr=0.01)
    pruner.prune(0.5)
    for seed in range(20):
        step(model, pruner, optimizer, seed)
    before, evaluation = copy.deepcopy((model, pruner))[0], pruner.gates.estimated()
    pruner.prune(1.0)
    model.eval()
    before.eval()
    for name, gate in zip(("first", "second"), evaluation, strict=True):
        mask = pruner.masks()[f"{name}.ranks"]
        before.get_submodule(name).set_gates(gate, gate * mask)  # type: ignore[operator]
    assert torch.allclose(model(states()), before(states()), rtol=0, atol=1e-12)
    assert torch.equal(model.train()(states()), model.eval()(states()))
    assert same(gates_of(pruner), [torch.ones_like(gate) for gate in gates_of(pruner)])
    masks = [mask.clone() for mask in pruner.masks().values()]
    weights = [parameter.clone() for parameter in model.parameters()]
    pruner.prune(0.5)
    pruner.prune(1.0)
    assert same(list(pruner.masks().values()), masks)
    assert same(list(model.parameters()), weights)
    assert not pruner.gates.learning


def test_survivors_have_the_largest_log_alpha() -> None:
    model, pruner = with_gates()
    pruner.prune(0.1)
    generator = torch.Generator().manual_seed(0)
    log_alpha = model.get_buffer("gates_log_alpha")
    log_alpha.copy_(torch.randn(log_alpha.shape, generator=generator))
    pruner.prune(1.0)
    kept = torch.cat([mask for mask in pruner.masks().values() if not mask.all()])
    known = torch.cat(
        [
            score
            for score, mask in zip(pruner.scores(), pruner.masks().values(), strict=True)
            if not mask.all()
        ]
    )
    assert known[kept].min() >= known[~kept].max()


@pytest.mark.parametrize("learned", [False, True])
def test_finalized_model_has_no_gates_and_computes_what_evaluation_did(
    learned: bool,
) -> None:
    model, pruner = with_gates()
    if learned:
        pruner.prune(0.5)
    pruner.prune(1.0)
    expected = model.eval()(states())
    pruner.finalize()
    assert torch.allclose(model(states()), expected, rtol=0, atol=1e-12)
    assert not list(model.buffers())


def test_full_budget_opens_no_gates() -> None:
    model = Network()
    pruner = LowRankL0(
        budget=FullBudget(), drop_rate=0.3, gate_learning_rate=1.0, multiplier_learning_rate=1.0
    )
    pruner.prepare(model)
    expected = model(states())
    pruner.prune(0.5)
    pruner.prune(1.0)
    assert torch.equal(model(states()), expected)
    assert not pruner.gates.learning


def test_seed_decides_the_gates() -> None:
    def gates(seed: int) -> list[Tensor]:
        pruner = LowRankL0(
            budget=FractionBudget(fraction=0.5),
            drop_rate=0.3,
            gate_learning_rate=0.1,
            multiplier_learning_rate=0.1,
            seed=seed,
        )
        pruner.prepare(Network())
        pruner.prune(0.1)
        return gates_of(pruner)

    assert same(gates(1), gates(1))
    assert not same(gates(1), gates(2))


def gradual(smoothing: float = 0.0) -> tuple[Network, LowRankGradual]:
    model = Network()
    pruner = LowRankGradual(budget=FractionBudget(fraction=0.5), smoothing=smoothing)
    pruner.prepare(model)
    return model, pruner


def test_score_is_the_first_order_change_of_the_loss_for_each_parameter() -> None:
    model, pruner = gradual()
    for target in pruner.targets:
        target.layer.set_gates(*torch.ones(2, target.layer.rank, dtype=torch.float64))
    optimizer = SGD(model.parameters(), lr=0.0)
    step(model, pruner, optimizer, 0)  # type: ignore[arg-type]
    small = 1e-6
    for target, score in zip(pruner.targets, pruner.scores(), strict=True):
        gate = target.layer.gate
        assert gate is not None
        for rank in range(target.layer.rank):
            losses = []
            for value in (1 + small, 1 - small):
                gate[rank] = value
                losses.append(loss_of(model).item())
            gate[rank] = 1.0
            change = abs(losses[0] - losses[1]) / (2 * small)
            expected = pytest.approx(change, rel=1e-4, abs=1e-9)
            assert score[rank].item() * target.cost == expected


def test_scores_are_averaged_over_steps_by_hand() -> None:
    model, pruner = gradual(smoothing=0.75)
    target = pruner.targets[0]
    up = target.layer.up.weight
    optimizer = AdamW(model.parameters(), lr=0.01)
    expected = torch.zeros(6, dtype=torch.float64)
    for seed in range(3):
        optimizer.zero_grad()
        backward(model, seed)
        assert up.grad is not None
        value = (up * up.grad).sum(0).abs().detach()
        expected = 0.75 * expected + 0.25 * value
        pruner.before_step()
        optimizer.step()
        pruner.after_step()
    assert torch.allclose(pruner.scores()[0] * target.cost, expected)


def test_ranks_that_the_loss_does_not_see_are_closed_first() -> None:
    model, pruner = gradual()
    optimizer = SGD(model.parameters(), lr=0.0)
    blind = torch.tensor([0, 2, 3])
    for target in pruner.targets:
        target.layer.down.weight.data[blind] = 0
    step(model, pruner, optimizer, 0)  # type: ignore[arg-type]
    pruner.prune(1.0)
    masks = list(pruner.masks().values())
    assert any(not mask.all() for mask in masks)
    assert all(mask.all() or not mask[blind].any() for mask in masks)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_that_is_no_average_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match=r"`smoothing` must be in \[0, 1\)"):
        LowRankGradual(budget=FullBudget(), smoothing=smoothing)


def test_finalize_removes_the_scores() -> None:
    model, pruner = gradual()
    pruner.prune(1.0)
    pruner.finalize()
    assert not list(model.buffers())


def test_order_of_closing_by_hand() -> None:
    score = torch.tensor([3.0, -torch.inf, 0.5, 9.0, 2.0])
    placed = in_order_of_closing(score, 4)
    # The closed one is first of the four that go first; then 0.5, 2 and 3, in quarters up to 0.
    assert placed.tolist() == [-0.25, -torch.inf, -0.75, 9, -0.5]
    assert torch.equal(in_order_of_closing(score, 0), score)


def of_unequal_importance(fraction: float) -> tuple[nn.Sequential, LowRankGradual]:
    """Make two matrices of 12 ranks, all of them more important in the first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12))
    pruner = LowRankGradual(budget=FractionBudget(fraction=fraction), smoothing=0.5)
    pruner.prepare(model)
    for target, scale in zip(pruner.targets, (100.0, 1.0), strict=True):
        target.layer.get_buffer("ranks_importance").copy_(scale + torch.arange(12.0))
    return model, pruner


def kept_by_amount(pruner: RankPruner) -> list[tuple[int, ...]]:
    found = []
    for tenth in range(11):
        pruner.prune(tenth / 10)
        found.append(tuple(int(mask.sum()) for mask in pruner.masks().values()))
    return found


def test_ranks_close_in_all_matrices_from_the_start_and_then_where_they_matter_least() -> None:
    _, pruner = of_unequal_importance(0.5)
    # Factors of 24 ranks of 24 are 576 parameters, and 144 are left in the end: of the 432 that
    # go, a tenth is 43, which is two ranks. At 6 ranks a matrix is as large as dense.
    kept = kept_by_amount(pruner)
    assert kept[:5] == [(12, 12), (11, 11), (10, 10), (9, 9), (8, 8)]
    assert [sum(one) for one in kept] == [24 - -(-(432 * tenth // 10) // 24) for tenth in range(11)]
    assert kept[-1] == (5, 1)


@pytest.mark.parametrize("percent", range(18, 100, 9))
def test_gradual_budget_is_met_with_less_than_a_rank_to_spare(percent: int) -> None:
    _, pruner = of_unequal_importance(percent / 100)
    kept = kept_by_amount(pruner)
    assert all(
        a >= b for before, after in pairwise(kept) for a, b in zip(before, after, strict=True)
    )
    asked = 288 * percent // 100
    assert asked - 24 < pruner.ledger().kept_in("encoder_linear") <= asked
