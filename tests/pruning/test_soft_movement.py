"""Soft movement pruning: its penalty against autograd, its threshold and last ranking by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from multiprune.budget import CountBudget, FractionBudget
from multiprune.pruning.soft_movement import SoftMovement, sigmoid_gradient


def soft_movement(
    layer: nn.Module,
    *,
    count: int = 1,
    threshold: float = 0.1,
    penalty: float = 0.0,
    min_density: float = 0.0,
) -> SoftMovement:
    pruner = SoftMovement(
        budget=CountBudget(count=count),
        score_learning_rate=0.01,
        threshold=threshold,
        penalty=penalty,
        min_density=min_density,
    )
    pruner.prepare(layer)
    return pruner


def test_derivative_of_the_sigmoid() -> None:
    scores = torch.linspace(-6, 6, 13, requires_grad=True)
    torch.sigmoid(scores).sum().backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    torch.testing.assert_close(sigmoid_gradient(scores.detach()), scores.grad)


@pytest.mark.parametrize("amount", [0.0, 0.25, 1.0])
def test_penalty_is_the_mean_of_means_of_the_sigmoid(amount: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 3, bias=False))
    pruner = soft_movement(model, penalty=200.0)
    for index in (0, 1):
        buffer = model.get_buffer(f"{index}.weight_scores")
        buffer.copy_(torch.randn(buffer.shape))
    pruner.prune(amount)

    scores = [model.get_buffer(f"{index}.weight_scores").clone() for index in (0, 1)]
    hidden = [model.get_buffer(f"{index}.weight_hidden").clone() for index in (0, 1)]
    dense = [model.get_parameter(f"{index}.weight").detach() + hidden[index] for index in (0, 1)]
    for score in scores:
        score.requires_grad_()
    penalty = 200.0 * amount * torch.stack([torch.sigmoid(score).mean() for score in scores]).mean()
    penalty.backward()  # type: ignore[no-untyped-call]

    for index in (0, 1):
        weight = model.get_parameter(f"{index}.weight")
        weight.grad = torch.randn(weight.shape)
    gradients: list[Tensor] = []
    for index, score in enumerate(scores):
        task_gradient = model.get_parameter(f"{index}.weight").grad
        assert task_gradient is not None
        assert score.grad is not None
        gradients.append(score.grad + task_gradient * dense[index])
    pruner.before_step()
    pruner.after_step()
    # After its first step, Adam's first moment is a tenth of the gradient.
    for index, gradient in enumerate(gradients):
        mean = model.get_buffer(f"{index}.weight_scores_mean")
        torch.testing.assert_close(10 * mean, gradient)


def layer_with(scores: list[float]) -> nn.Linear:
    layer = nn.Linear(len(scores), 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    return layer


def kept_with(
    scores: list[float], pruner: SoftMovement, layer: nn.Linear, amount: float
) -> list[bool]:
    layer.get_buffer("weight_scores").copy_(torch.tensor([scores]))
    pruner.prune(amount)
    kept: list[bool] = pruner.masks()["weight"][0].tolist()
    assert layer.weight[0].tolist() == [2.0 * one for one in kept]
    assert layer.get_buffer("weight_hidden")[0].tolist() == [2.0 * (not one) for one in kept]
    return kept


def test_threshold_rises_with_the_amount() -> None:
    # sigmoid(-4) = 0.018, sigmoid(-3) = 0.047, sigmoid(-2.5) = 0.076, sigmoid(0) = 0.5
    scores = [0.0, -4.0, -2.5, -3.0]
    layer = layer_with(scores)
    pruner = soft_movement(layer, threshold=0.1)
    assert kept_with(scores, pruner, layer, 0.0) == [True, True, True, True]
    assert kept_with(scores, pruner, layer, 0.25) == [True, False, True, True]
    assert kept_with(scores, pruner, layer, 0.5) == [True, False, True, False]
    assert kept_with(scores, pruner, layer, 0.99) == [True, False, False, False]
    assert kept_with(scores, pruner, layer, 0.25) == [True, False, True, True]


def test_score_at_the_threshold_is_pruned() -> None:
    scores = [0.0, 1e-3]  # sigmoid(0) is 0.5 exactly, and so is 0.625 * 0.8
    layer = layer_with(scores)
    pruner = soft_movement(layer, threshold=0.625)
    assert kept_with(scores, pruner, layer, 0.8) == [False, True]


def test_fewest_weights_stay_whatever_the_threshold() -> None:
    scores = [-10.0, -9.0, -12.0, -11.0, -9.5, -20.0, -20.0, -20.0]
    layer = layer_with(scores)
    pruner = soft_movement(layer, threshold=0.5, min_density=0.25)
    assert kept_with(scores, pruner, layer, 0.5) == [i in (1, 4) for i in range(8)]
    scores[0] = scores[5] = scores[6] = 3.0  # three are above the threshold: the floor is idle
    assert kept_with(scores, pruner, layer, 0.5) == [i in (0, 5, 6) for i in range(8)]


def test_last_ranking_meets_the_budget_on_either_side_of_the_threshold() -> None:
    below, above = [-10.0, -9.0, -12.0, -11.0], [3.0, 5.0, 4.0, 6.0]
    layer = layer_with(below)
    pruner = soft_movement(layer, count=2, threshold=0.5)
    assert kept_with(below, pruner, layer, 1.0) == [True, True, False, False]
    assert kept_with(above, pruner, layer, 1.0) == [False, True, False, True]


def test_full_budget_prunes_nothing_on_the_way_either() -> None:
    scores = [-10.0, 0.0, 10.0]
    layer = layer_with(scores)
    pruner = soft_movement(layer, count=3, threshold=0.5)
    for amount in (0.0, 0.5, 1.0):
        assert kept_with(scores, pruner, layer, amount) == [True, True, True]


def test_penalty_alone_drives_scores_below_the_threshold() -> None:
    layer = layer_with([0.0] * 4)
    pruner = soft_movement(layer, count=3, threshold=0.45, penalty=1.0)
    pruner.prune(0.5)  # the one weight above the budget is not due before the end
    layer.weight.grad = torch.zeros_like(layer.weight)
    # Adam moves a score by its learning rate, 0.01, as long as the gradient hardly changes.
    steps = math.ceil(math.log((1 - 0.225) / 0.225) / 0.01)
    for step in range(1, steps + 20):
        pruner.before_step()
        pruner.after_step()
        pruner.prune(0.5)
        if step < steps - 20:
            assert pruner.masks()["weight"].all()
    assert not pruner.masks()["weight"].any()


def test_no_ranking_keeps_more_than_is_due() -> None:
    scores = [3.0, 5.0, 4.0, 6.0, 1.0, 2.0, -9.0, -8.0]  # six are far above the threshold
    layer = layer_with(scores)
    pruner = soft_movement(layer, count=1, threshold=0.5)
    # 8, 8 - int(7 / 4), 8 - int(7 / 2), ... are due; the threshold at a tenth takes two.
    for amount, best in [(0.0, 8), (0.1, 6), (0.25, 6), (0.5, 5), (0.75, 3), (0.9, 2), (1.0, 1)]:
        kept = kept_with(scores, pruner, layer, amount)
        assert kept == [score >= sorted(scores)[-best] for score in scores], amount


def test_what_is_due_is_that_of_each_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 1, bias=False), nn.Linear(20, 1, bias=False))
    pruner = SoftMovement(
        budget=CountBudget(count=3),
        score_learning_rate=0.01,
        threshold=0.5,
        penalty=0.0,
        min_density=0.0,
        per_layer=True,
    )
    pruner.prepare(model)
    model[0].get_buffer("weight_scores").fill_(9.0)
    model[1].get_buffer("weight_scores").fill_(-0.5)  # sigmoid 0.38, above 0.5 * 0.5
    pruner.prune(0.5)
    # 30 - int(27 / 2) = 17 are due: 17 * 10 / 30 = 5.67 and 11.33.
    assert [int(mask.sum()) for mask in pruner.masks().values()] == [6, 11]
    model[1].get_buffer("weight_scores").fill_(-9.0)
    pruner.prune(0.5)
    assert [int(mask.sum()) for mask in pruner.masks().values()] == [6, 0]


@pytest.mark.parametrize(("threshold", "penalty"), [(0.0, 1.0), (1.0, 1.0), (0.5, -1.0)])
def test_values_out_of_range_are_an_error(threshold: float, penalty: float) -> None:
    with pytest.raises(ValueError, match=r"`(threshold|penalty)` must be .*, but is (0|1|-1)\.0"):
        SoftMovement(
            budget=FractionBudget(fraction=0.5),
            score_learning_rate=0.01,
            threshold=threshold,
            penalty=penalty,
        )
