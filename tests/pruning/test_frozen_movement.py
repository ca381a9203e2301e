"""Scores learn as in movement pruning, by hand and beside it, and weights do not move."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from multiprune.budget import CountBudget, FractionBudget
from multiprune.pruning.frozen_movement import FrozenMovement
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.movement import Movement
from multiprune.pruning.schedule import CubicSchedule

STEPS = 20


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Embedding(7, 6), nn.LayerNorm(6), nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5)
        )
        self.head = nn.Linear(5, 3)


def network() -> Network:
    torch.manual_seed(0)
    return Network()


def loss_of(model: Network, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    tokens = torch.randint(7, (4, 5), generator=generator)
    labels = torch.randint(3, (4,), generator=generator)
    return nn.functional.cross_entropy(model.head(model.encoder(tokens).mean(1)), labels)


def train(model: Network, pruner: Movement, trained: nn.Module) -> None:
    """Take steps with weight decay, accumulation and clipping."""
    pruner.prepare(model, model.encoder)
    optimizer = AdamW(trained.parameters(), lr=0.05, weight_decay=0.5)
    driver = GradualPruning(
        pruner, CubicSchedule(start=0.0, stop=0.7), total_steps=STEPS, every_n_steps=2
    )
    for step in range(STEPS):
        model.zero_grad()
        for number in (2 * step, 2 * step + 1):
            loss_of(model, number).backward()  # type: ignore[no-untyped-call]
        driver.before_step(optimizer)
        nn.utils.clip_grad_norm_(trained.parameters(), 0.1)
        optimizer.step()
        driver.after_step(optimizer)


def frozen() -> FrozenMovement:
    return FrozenMovement(budget=FractionBudget(fraction=0.3), score_learning_rate=0.1)


def test_scores_move_against_gradient_times_weight_and_the_weights_stay() -> None:
    layer = nn.Linear(3, 1)
    layer.weight.data = torch.tensor([[1.0, -2.0, 3.0]])
    bias = layer.bias.detach().clone()
    pruner = FrozenMovement(
        budget=CountBudget(count=2), score_learning_rate=0.5, magnitude_prior=0.0
    )
    pruner.prepare(layer)
    optimizer = SGD(layer.parameters(), lr=1.0, momentum=0.9, weight_decay=0.5)
    layer.weight.grad = torch.tensor([[2.0, 3.0, -4.0]])
    pruner.before_step()
    optimizer.step()
    pruner.after_step()
    # dL/dS = (2 * 1, 3 * -2, -4 * 3): up, down, down. Adam's first step is one learning rate.
    scores, mean = layer.get_buffer("weight_scores"), layer.get_buffer("weight_scores_mean")
    torch.testing.assert_close(scores, torch.tensor([[-0.5, 0.5, 0.5]]), rtol=0, atol=1e-7)
    torch.testing.assert_close(mean, 0.1 * torch.tensor([[2.0, -6.0, -12.0]]))
    assert layer.weight.tolist() == [[1.0, -2.0, 3.0]]
    assert torch.equal(layer.bias, bias)
    pruner.prune(1.0)
    assert layer.weight.tolist() == [[0.0, -2.0, 3.0]]


def test_what_is_left_is_the_encoder_of_the_start_times_masks() -> None:
    model, start = network(), dict(network().named_parameters())
    pruner = frozen()
    train(model, pruner, trained=model)
    pruner.finalize()
    masks = pruner.masks()
    assert masks.keys() == {"encoder.2.weight", "encoder.4.weight"}
    for path, parameter in model.named_parameters():
        if path.startswith("encoder."):
            assert torch.equal(parameter, start[path] * masks.get(path, torch.tensor(1.0)))
        else:
            assert not torch.equal(parameter, start[path])
    assert sum(int(mask.sum()) for mask in masks.values()) == int(0.3 * 88)


def test_scores_are_those_of_movement_whose_optimizer_has_no_weights() -> None:
    ours, theirs = network(), network()
    train(ours, frozen(), trained=ours)
    movement = Movement(budget=FractionBudget(fraction=0.3), score_learning_rate=0.1)
    train(theirs, movement, trained=theirs.head)
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_only_scored_weights_ask_for_gradients() -> None:
    model, pruner = network(), frozen()
    pruner.prepare(model, model.encoder)
    loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
    matrices = {"encoder.2.weight", "encoder.4.weight"}
    found = {path for path, one in model.named_parameters() if one.grad is not None}
    assert found == matrices | {"head.weight", "head.bias"}
    pruner.before_step()
    # Neither clipping nor an optimizer sees those of the weights.
    assert all(model.get_parameter(path).grad is None for path in matrices)


def test_a_step_that_was_skipped_leaves_everything_as_it_was() -> None:
    model, pruner = network(), frozen()
    pruner.prepare(model, model.encoder)
    pruner.prune(1.0)
    before = copy.deepcopy(model.state_dict())
    (loss_of(model, 0) * torch.inf).backward()  # type: ignore[no-untyped-call]
    pruner.before_step()
    pruner.skip_step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_heads_are_not_frozen_by_pruning_them() -> None:
    budget = FractionBudget(fraction=0.3, of="total")
    parts = ["encoder_linear", "heads"]
    pruner = FrozenMovement(budget=budget, score_learning_rate=0.1, parts=parts)
    model = network()
    with pytest.raises(ValueError, match="heads have to learn"):
        pruner.prepare(model, model.encoder)
