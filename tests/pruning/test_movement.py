"""Movement pruning, by hand and against masks in the forward pass with a straight-through gradient.

The comparison is bit for bit: both sides do the same floating-point operations on kept weights.
"""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from multiprune.budget import CountBudget, FractionBudget
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.magnitude import Magnitude
from multiprune.pruning.movement import Movement
from multiprune.pruning.schedule import CubicSchedule

STEPS, EVERY_N_STEPS, STOP, FRACTION = 40, 3, 0.7, 0.25
# A power of two: the present learning rate over this peak is the schedule's factor to the bit.
PEAK = 2.0**-6
SCORE_LEARNING_RATE, WEIGHT_DECAY = 0.01, 0.1


def test_scores_move_against_gradient_times_weight() -> None:
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, -2.0, 3.0]])
    pruner = Movement(budget=CountBudget(count=2), score_learning_rate=0.5, magnitude_prior=0.0)
    pruner.prepare(layer)
    # dL/dS = (2 * 1, 3 * -2, -4 * 3): up, down, down. Adam's first step is one learning rate.
    layer.weight.grad = torch.tensor([[2.0, 3.0, -4.0]])
    pruner.before_step()
    pruner.after_step()
    scores = layer.get_buffer("weight_scores")
    torch.testing.assert_close(scores, torch.tensor([[-0.5, 0.5, 0.5]]), rtol=0, atol=1e-7)
    torch.testing.assert_close(
        layer.get_buffer("weight_scores_mean"), 0.1 * torch.tensor([[2.0, -6.0, -12.0]])
    )
    pruner.prune(1.0)
    assert layer.weight.tolist() == [[0.0, -2.0, 3.0]]
    assert layer.get_buffer("weight_hidden").tolist() == [[1.0, 0.0, 0.0]]


def test_with_a_prior_the_first_ranking_goes_by_magnitude() -> None:
    torch.manual_seed(0)
    movement, magnitude = (nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)) for _ in range(2))
    magnitude.load_state_dict(movement.state_dict())
    budget = CountBudget(count=11)
    for model, pruner in (
        (movement, Movement(budget=budget, score_learning_rate=0.1, magnitude_prior=0.5)),
        (magnitude, Magnitude(budget=budget)),
    ):
        pruner.prepare(model)
        pruner.prune(1.0)
    for one, other in zip(movement.parameters(), magnitude.parameters(), strict=True):
        assert torch.equal(one, other)


def test_prior_is_in_units_of_the_mean_magnitude() -> None:
    layer = nn.Linear(3, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, -2.0, 3.0]])
    Movement(budget=CountBudget(count=2), score_learning_rate=0.5, magnitude_prior=4.0).prepare(
        layer
    )
    torch.testing.assert_close(layer.get_buffer("weight_scores"), torch.tensor([[2.0, 4.0, 6.0]]))


def test_negative_prior_is_refused() -> None:
    with pytest.raises(ValueError, match="magnitude_prior"):
        Movement(budget=CountBudget(count=2), score_learning_rate=0.5, magnitude_prior=-1.0)


def test_learning_rate_of_scores_follows_that_of_the_weights() -> None:
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, 1.0]])
    pruner = Movement(budget=CountBudget(count=1), score_learning_rate=0.5, magnitude_prior=0.0)
    pruner.prepare(layer)
    layer.weight.grad = torch.tensor([[-1.0, 1.0]])
    pruner.before_step(learning_rate_scale=0.25)
    pruner.after_step()
    expected = torch.tensor([[0.125, -0.125]])
    torch.testing.assert_close(layer.get_buffer("weight_scores"), expected, rtol=0, atol=1e-7)


def test_step_without_a_gradient_counts_as_a_gradient_of_zero() -> None:
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, 2.0]])
    pruner = Movement(budget=CountBudget(count=1), score_learning_rate=0.5, magnitude_prior=0.0)
    pruner.prepare(layer)
    for gradient in (torch.tensor([[3.0, -5.0]]), None):
        layer.weight.grad = gradient
        pruner.before_step()
        pruner.after_step()
    # dL/dS = (3 * 1, -5 * 2), of which a tenth is taken, and nine tenths of that stay.
    expected = torch.tensor([[0.27, -0.9]])
    torch.testing.assert_close(layer.get_buffer("weight_scores_mean"), expected)


def test_pruned_weight_returns_with_the_value_it_had() -> None:
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[3.0, 1.0]])
    pruner = Movement(budget=CountBudget(count=1), score_learning_rate=0.1, magnitude_prior=0.0)
    pruner.prepare(layer)
    # Scores are -0.1 and 0.1 after the first step; Adam needs two steps more to turn them round.
    first, back = ([1.0, -1.0], [0.0, 1.0]), [-9.0, 9.0]
    for gradient, kept in [first, (back, [0.0, 1.0]), (back, [3.0, 0.0])]:
        layer.weight.grad = torch.tensor([gradient])
        pruner.before_step()
        pruner.after_step()
        pruner.prune(1.0)
        assert layer.weight.tolist() == [kept]


def test_learning_rate_of_scores_must_be_positive() -> None:
    with pytest.raises(ValueError, match="must be above 0, but is 0"):
        Movement(budget=CountBudget(count=1), score_learning_rate=0)


class StraightThroughMask(torch.autograd.Function):
    """``W * M`` forward; backward, ``S`` gets what ``M`` would get."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(weight, mask)
        return torch.where(mask, weight, scores.new_zeros(()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, mask = ctx.saved_tensors
        (gradient,) = gradients
        return gradient * mask, gradient * weight, None


class Reference:
    """A two-layer network as Sanh et al. (2020) write it: weights and scores are parameters."""

    def __init__(self, model: nn.Sequential, *, per_layer: bool) -> None:
        state = {name: value.clone() for name, value in model.state_dict().items()}
        self.per_layer = per_layer
        self.parameters = {name: nn.Parameter(value) for name, value in state.items()}
        self.matrices = ["0.weight", "2.weight"]
        self.scores = {name: nn.Parameter(torch.zeros_like(state[name])) for name in self.matrices}
        self.masks = {name: torch.ones_like(state[name]).bool() for name in self.matrices}

    def masked(self) -> dict[str, Tensor]:
        """Put the masks into the graph, once for all micro-batches of a step."""
        return {
            name: StraightThroughMask.apply(  # type: ignore[no-untyped-call]
                self.parameters[name], self.scores[name], self.masks[name]
            )
            for name in self.matrices
        }

    def forward(self, inputs: Tensor, masked: dict[str, Tensor]) -> Tensor:
        states = functional.linear(inputs, masked["0.weight"], self.parameters["0.bias"])
        return functional.linear(states.tanh(), masked["2.weight"], self.parameters["2.bias"])

    def rank(self, amount: float) -> None:
        dense = 64 + 32
        kept = dense - int((dense - int(FRACTION * dense)) * amount)
        groups, counts = [self.matrices], [kept]
        if self.per_layer:
            groups, counts = [[name] for name in self.matrices], [round(kept * 2 / 3)]
            counts.append(kept - counts[0])
        for group, count in zip(groups, counts, strict=True):
            scores = torch.cat([self.scores[name].detach().reshape(-1) for name in group])
            mask = torch.zeros(scores.numel(), dtype=torch.bool)
            mask[scores.sort(descending=True, stable=True).indices[:count]] = True
            sizes = [self.scores[name].numel() for name in group]
            for name, part in zip(group, torch.split(mask, sizes), strict=True):
                self.masks[name] = part.view_as(self.scores[name])


def learning_rate_factor(step: int) -> float:
    """Four steps of warm-up, then down to almost nothing."""
    return min((step + 1) / 4, 1 - step / 41)


def micro_batches(step: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(step)
    return [
        (torch.randn(5, 8, generator=generator), torch.randn(5, 4, generator=generator))
        for _ in range(2)
    ]


def train_reference(reference: Reference) -> list[dict[str, Tensor]]:
    """Train; return the masks after each step."""
    weights = torch.optim.AdamW(
        reference.parameters.values(), lr=PEAK, weight_decay=WEIGHT_DECAY, foreach=False
    )
    scores = torch.optim.Adam(reference.scores.values(), lr=SCORE_LEARNING_RATE, fused=True)
    schedulers = [LambdaLR(optimizer, learning_rate_factor) for optimizer in (weights, scores)]
    history = []
    for step in range(1, STEPS + 1):
        masked = reference.masked()
        losses = [
            functional.mse_loss(reference.forward(inputs, masked), targets) / 2
            for inputs, targets in micro_batches(step)
        ]
        for optimizer in (weights, scores):
            optimizer.zero_grad()
        sum(losses, torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        for optimizer in (weights, scores):
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
        last = STOP * STEPS
        if step == last or (step < last and step % EVERY_N_STEPS == 0):
            reference.rank(1 - (1 - min(step / STEPS / STOP, 1)) ** 3)
        history.append(dict(reference.masks))
    return history


@pytest.mark.parametrize("per_layer", [False, True])
def test_training_equals_straight_through_masks_bit_for_bit(per_layer: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    reference = Reference(model, per_layer=per_layer)
    masks = train_reference(reference)

    pruner = Movement(
        budget=FractionBudget(fraction=FRACTION),
        score_learning_rate=SCORE_LEARNING_RATE,
        magnitude_prior=0.0,
        per_layer=per_layer,
    )
    pruner.prepare(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK, weight_decay=WEIGHT_DECAY, foreach=False
    )
    scheduler = LambdaLR(optimizer, learning_rate_factor)
    driver = GradualPruning(
        pruner,
        CubicSchedule(start=0.0, stop=STOP),
        total_steps=STEPS,
        every_n_steps=EVERY_N_STEPS,
    )
    driver.attach(optimizer)
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        for inputs, targets in micro_batches(step):
            loss = functional.mse_loss(model(inputs), targets) / 2
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        assert list(pruner.masks()) == reference.matrices
        for name, mask in pruner.masks().items():
            assert torch.equal(mask, masks[step - 1][name])

    state = model.state_dict()
    for name in reference.matrices:
        weight = reference.parameters[name]
        assert torch.equal(state[f"{name}_scores"], reference.scores[name])
        assert torch.equal(state[name] + state[f"{name}_hidden"], weight)
        assert torch.equal(state[name], weight * reference.masks[name])
    for name in ("0.bias", "2.bias"):
        assert torch.equal(state[name], reference.parameters[name])
    came_back = [
        bool((later[name] & ~earlier[name]).any())
        for name in reference.matrices
        for earlier, later in pairwise(masks)
    ]
    assert any(came_back)
