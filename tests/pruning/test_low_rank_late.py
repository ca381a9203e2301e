"""Ranks cut once from dense layers: what is gathered before, what is cut, and how a run resumes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from rank_world import Network, backward, states
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from multiprune.budget import CountBudget, FractionBudget
from multiprune.models.late_low_rank import LateLowRankLinear
from multiprune.models.modeling_multiprune import FactoredLinear
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.low_rank_late import FISHER, LowRankLate
from multiprune.pruning.ready import NotReadyError
from multiprune.pruning.schedule import OneShotSchedule
from multiprune.pruning.second_moments import MOMENT


def prepared(fraction: float = 0.5, **options: Any) -> tuple[Network, LowRankLate]:
    model = Network()
    pruner = LowRankLate(budget=FractionBudget(fraction=fraction), **options)
    pruner.prepare(model)
    return model, pruner


def step(
    model: nn.Module, pruner: LowRankLate, optimizer: torch.optim.Optimizer, seed: int
) -> None:
    optimizer.zero_grad()
    backward(model, seed)
    pruner.before_step()
    optimizer.step()
    pruner.after_step()


def late(module: nn.Module) -> LateLowRankLinear:
    assert isinstance(module, LateLowRankLinear)
    return module


def test_nothing_goes_before_the_end() -> None:
    model, pruner = prepared()
    optimizer = AdamW(model.parameters())
    for seed in range(3):
        step(model, pruner, optimizer, seed)
        pruner.prune(0.3 * seed)
    assert late(model.first).is_dense
    assert all(mask.all() for mask in pruner.masks().values())
    assert pruner.ledger().kept_in("encoder_linear") == 88


def test_squared_gradients_are_averaged_by_output_by_hand() -> None:
    model, pruner = prepared(decay=0.75)
    expected = torch.zeros(8, dtype=torch.float64)
    for seed in range(3):
        model.zero_grad()
        backward(model, seed)
        gradient = late(model.first).up.weight.grad
        assert gradient is not None
        expected = 0.75 * expected + 0.25 * gradient.square().sum(1)
        pruner.before_step()
        pruner.after_step()
    torch.testing.assert_close(model.first.get_buffer(FISHER), expected)


def driven(total: int = 8, **options: Any) -> tuple[Network, LowRankLate, GradualPruning]:
    """Prune after the first half of the steps."""
    model, pruner = prepared(**options)
    schedule = OneShotSchedule(at=0.5)
    return model, pruner, GradualPruning(pruner, schedule, total_steps=total, every_n_steps=1)


def test_inputs_of_the_last_steps_before_the_cut_are_summed_up() -> None:
    model, _, driver = driven(moment_steps=2)
    optimizer = SGD(model.parameters(), lr=0.0)
    driver.attach(optimizer)
    read = []
    for seed in range(3):  # of four
        optimizer.zero_grad()
        backward(model, seed)
        optimizer.step()
        read.append(model.first.get_buffer(MOMENT).clone())
    # The third step is the first of the last two.
    assert [tuple(one.shape) for one in read] == [(0, 0), (0, 0), (6, 6)]
    torch.testing.assert_close(read[2], states(2).T @ states(2))
    inner = model.first(states(2)).tanh().detach()
    torch.testing.assert_close(model.second.get_buffer(MOMENT), inner.T @ inner)
    backward(model, 3)
    optimizer.step()
    assert len(model.first.get_buffer(MOMENT)) == 0  # they have done what they are for


def test_only_passes_that_lead_to_a_step_are_read() -> None:
    model, pruner = prepared()
    for seed in (1, 2):
        backward(model, seed)
        pruner.before_step()
        pruner.skip_step()
    backward(model, 3)
    pruner.forget_passes()
    with torch.no_grad():
        model(states(4))
    model.eval()
    backward(model, 5)
    model.train()
    for seed in (6, 7):  # two batches of one step
        backward(model, seed)
    pruner.before_step()
    pruner.after_step()
    expected = sum((states(seed).T @ states(seed) for seed in (6, 7)), torch.zeros(6, 6))
    torch.testing.assert_close(model.first.get_buffer(MOMENT), expected)


def test_inputs_of_all_processes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pruner = prepared()
    distributed = torch.distributed

    def all_reduce(flat: Tensor) -> None:
        flat *= 4  # three others have read the same

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 4)
    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    backward(model)
    pruner.before_step()
    pruner.after_step()
    torch.testing.assert_close(model.first.get_buffer(MOMENT), 4 * states().T @ states())


def test_directions_that_are_read_survive_however_small_their_weights() -> None:
    """The inputs have nothing in the directions of the three largest singular values."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8)).double()
    left, _, right = torch.linalg.svd(model[0].weight.data)
    values = torch.tensor([4.0, 3.5, 3.0, 2.0, 1.8, 1.6, 0.1, 0.05], dtype=torch.float64)
    model[0].weight.data = left * values @ right
    inputs = torch.randn(30, 5, dtype=torch.float64) @ right[3:]
    expected = model(inputs).detach()

    def error(**options: bool) -> float:
        copied = copy.deepcopy(model)
        pruner = LowRankLate(budget=CountBudget(count=3 * 16), damping=1e-4, **options)
        pruner.prepare(copied)
        copied(inputs).sum().backward()
        pruner.before_step()
        pruner.after_step()
        pruner.prune(1.0)
        assert pruner.masks()["0.ranks"].tolist() == [True] * 3 + [False] * 5
        with torch.no_grad():
            return float((copied(inputs) - expected).square().mean() / expected.var())

    assert error() < 0.01
    assert error(weight_rows=False) < 0.01
    assert error(whiten=False) > 0.5


def test_without_weights_it_is_the_nearest_matrix() -> None:
    model, pruner = prepared(whiten=False, weight_rows=False)
    dense = {
        name: late(model.get_submodule(name)).up.weight.clone() for name in ("first", "second")
    }
    assert [name for name, _ in model.named_buffers() if "mask" not in name] == []
    assert not pruner.reads_gradients
    pruner.prune(1.0)
    pruner.shrink()
    for name, weight in dense.items():
        layer = late(model.get_submodule(name))
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        nearest = (left * values)[:, : layer.rank] @ right[: layer.rank]
        torch.testing.assert_close(layer.merged().weight.data, nearest)


def trained(steps: int, fraction: float = 0.5) -> tuple[Network, LowRankLate, AdamW]:
    model, pruner = prepared(fraction)
    optimizer = AdamW(model.parameters(), lr=0.02)
    for seed in range(steps):
        step(model, pruner, optimizer, seed)
    return model, pruner, optimizer


def test_pruned_matrix_keeps_its_ranks_until_it_is_cut() -> None:
    model, pruner, optimizer = trained(3)
    pruner.prune(1.0)
    kept = [int(mask.sum()) for mask in pruner.masks().values()]
    for seed in range(2):
        step(model, pruner, optimizer, seed)
        ranks = [
            int(torch.linalg.matrix_rank(late(layer).up.weight, rtol=1e-9))
            for layer in model.children()
        ]
        assert ranks == kept
    expected = model(states())
    assert pruner.shrink(optimizer)
    assert not pruner.shrink(optimizer)
    assert [late(layer).rank for layer in model.children()] == kept
    torch.testing.assert_close(model(states()), expected)
    assert pruner.ledger().kept_in("encoder_linear") == kept[0] * 14 + kept[1] * 13 <= 44
    pruner.finalize()
    assert {type(layer) for layer in model.children()} == {FactoredLinear}
    torch.testing.assert_close(model(states()), expected)
    assert not list(model.buffers())


def test_layer_that_factors_would_not_make_smaller_stays_dense() -> None:
    model, pruner, optimizer = trained(3, fraction=0.8)
    # What the second layer reads says little of the loss: its ranks are the cheapest.
    for name, mass in {"first": 1e6, "second": 1.0}.items():
        fisher = model.get_submodule(name).get_buffer(FISHER)
        fisher.copy_(torch.full_like(fisher, mass))
    weight = late(model.first).up.weight.clone()
    pruner.prune(1.0)
    pruner.shrink(optimizer)
    assert pruner.masks()["first.ranks"].all()
    assert late(model.first).is_dense
    assert torch.equal(late(model.first).up.weight, weight)
    step(model, pruner, optimizer, 4)
    expected = model(states())
    pruner.finalize()
    assert type(model.first) is nn.Linear
    torch.testing.assert_close(model(states()), expected)


def test_unread_layer_is_cut_first_and_no_statistics_at_all_are_the_plain_decomposition() -> None:
    model = nn.ModuleDict({"used": nn.Linear(6, 6), "unused": nn.Linear(6, 6)})
    for steps, kept in ((1, [6, 1]), (0, [1, 6])):
        copied = copy.deepcopy(model)
        copied["unused"].get_parameter("weight").data.mul_(10)  # most, if nothing else is known
        pruner = LowRankLate(budget=CountBudget(count=48))
        pruner.prepare(copied)
        for seed in range(steps):
            copied["used"](states(seed).float()).square().sum().backward()
            pruner.before_step()
            pruner.after_step()
        pruner.prune(1.0)
        assert [int(mask.sum()) for mask in pruner.masks().values()] == kept


@pytest.mark.parametrize("saved_after", [1, 3, 4, 6])
def test_run_saved_before_while_inputs_are_read_and_after_the_cut_resumes(saved_after: int) -> None:
    def fresh() -> tuple[Network, AdamW]:
        model, _, driver = driven(moment_steps=2)
        optimizer = AdamW(model.parameters(), lr=0.02)
        driver.attach(optimizer)
        # The pruner is known to hooks alone, as in a script that ends.
        return model, optimizer

    def train(model: Network, optimizer: AdamW, seeds: range) -> None:
        for seed in seeds:
            optimizer.zero_grad()
            backward(model, seed)
            optimizer.step()

    straight, optimizer = fresh()
    train(straight, optimizer, range(saved_after))
    saved = copy.deepcopy((straight.state_dict(), optimizer.state_dict()))
    train(straight, optimizer, range(saved_after, 8))
    resumed, its_optimizer = fresh()
    resumed.load_state_dict(saved[0])
    its_optimizer.load_state_dict(saved[1])
    train(resumed, its_optimizer, range(saved_after, 8))
    assert resumed.state_dict().keys() == straight.state_dict().keys()
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"whiten": 1}, "`whiten` must be true or false, but is 1"),
        ({"weight_rows": "yes"}, "`weight_rows` must be true or false, but is 'yes'"),
        ({"decay": 1.0}, "`decay` must be"),
        ({"moment_steps": 0}, "`moment_steps` must be"),
        ({"damping": 0.0}, "`damping` must be"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LowRankLate(budget=FractionBudget(fraction=0.5), **options)


def test_sums_of_few_bits_are_refused() -> None:
    model, pruner = prepared(weight_rows=False)
    pruner.check_ready()
    model.half()
    with pytest.raises(NotReadyError, match=r"cast to float16 with: cast it before pruner\.prep"):
        pruner.check_ready()


def test_gradients_and_inputs_that_are_nan_are_refused() -> None:
    model, pruner, _ = trained(2)
    model.second.get_buffer(FISHER)[0] = torch.nan
    with pytest.raises(FloatingPointError, match="Statistics of inputs or gradients of second are"):
        pruner.prune(1.0)
