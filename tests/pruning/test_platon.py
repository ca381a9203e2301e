"""PLATON, by hand and against its formulas on plain dictionaries."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from multiprune.budget import CountBudget, FractionBudget
from multiprune.pruning.platon import Platon, smooth


def prepared(layer: nn.Linear, *, beta1: float, beta2: float) -> Platon:
    pruner = Platon(budget=CountBudget(count=1), beta1=beta1, beta2=beta2)
    pruner.prepare(layer)
    return pruner


def move(layer: nn.Linear, pruner: Platon, *, weight: list[float], gradient: list[float]) -> None:
    """Take a step as if the optimizer had moved the weights to ``weight``."""
    layer.weight.grad = torch.tensor([gradient])
    pruner.before_step()
    layer.weight.data.copy_(torch.tensor([weight]))
    pruner.after_step()


def test_formulas_over_two_windows_and_regrowth() -> None:
    layer = nn.Linear(3, 1, bias=False)
    pruner = prepared(layer, beta1=0.5, beta2=0.75)
    move(layer, pruner, weight=[1.0, -2.0, 4.0], gradient=[1.0, 1.0, 1.0])  # |w g| = 1, 2, 4
    move(layer, pruner, weight=[2.0, 2.0, -2.0], gradient=[-1.0, 2.0, 1.0])  # |w g| = 2, 4, 2
    pruner.prune(1.0)
    # I = 1.5, 3, 3; I_bar = I / 2; U_bar = (I - I_bar) / 4
    assert layer.get_buffer("weight_sensitivity").tolist() == [[0.75, 1.5, 1.5]]
    assert layer.get_buffer("weight_uncertainty").tolist() == [[0.1875, 0.375, 0.375]]
    assert pruner.scores()[0].tolist() == [[0.140625, 0.5625, 0.5625]]
    assert pruner.masks()["weight"].tolist() == [[False, True, False]]
    assert layer.weight.tolist() == [[0.0, 2.0, 0.0]]

    move(layer, pruner, weight=[3.0, 1.0, 1.0], gradient=[-4.0, 1.0, 1.0])  # |w g| = 12, 1, 1
    assert layer.weight.tolist() == [[0.0, 1.0, 0.0]]
    pruner.prune(1.0)
    # I_bar = (0.75 + 12) / 2, (1.5 + 1) / 2; |I - I_bar| = 5.625, 0.25
    assert layer.get_buffer("weight_sensitivity").tolist() == [[6.375, 1.25, 1.25]]
    # U_bar = 0.75 * 0.1875 + 0.25 * 5.625, 0.75 * 0.375 + 0.25 * 0.25
    assert layer.get_buffer("weight_uncertainty").tolist() == [[1.546875, 0.34375, 0.34375]]
    assert pruner.masks()["weight"].tolist() == [[True, False, False]]
    assert layer.weight.tolist() == [[0.0, 0.0, 0.0]]


def test_ranking_twice_without_a_step_changes_nothing() -> None:
    layer = nn.Linear(3, 1, bias=False)
    pruner = prepared(layer, beta1=0.5, beta2=0.75)
    move(layer, pruner, weight=[1.0, -2.0, 4.0], gradient=[1.0, 1.0, 1.0])
    pruner.prune(1.0)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    pruner.prune(1.0)
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key])


def test_smoothing_between_its_ends() -> None:
    previous, value = torch.tensor(8.0), torch.tensor(4.0)
    assert smooth(previous, value, 0.0) == 4
    assert smooth(previous, value, 0.25) == 5
    assert smooth(previous, value, 1.0) == 8


@pytest.mark.parametrize(("beta1", "beta2"), [(-0.1, 0.5), (0.5, 1.0)])
def test_betas_out_of_range_are_an_error(beta1: float, beta2: float) -> None:
    with pytest.raises(ValueError, match=r"`beta[12]` must be in \[0, 1\), but is "):
        Platon(budget=CountBudget(count=1), beta1=beta1, beta2=beta2)


class Reference:
    """Equations 4 to 7 for a dictionary of weights, all ranked together."""

    def __init__(self, weights: dict[str, nn.Parameter], *, beta1: float, beta2: float) -> None:
        self.weights, self.beta1, self.beta2 = weights, beta1, beta2
        self.masks = {name: torch.ones_like(weight).bool() for name, weight in weights.items()}
        self.windows: dict[str, list[Tensor]] = {name: [] for name in weights}
        self.sensitivity = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self.uncertainty = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def after_step(self) -> None:
        for name, weight in self.weights.items():
            assert weight.grad is not None
            self.windows[name].append((weight.detach() * weight.grad).abs())
            weight.data[~self.masks[name]] = 0.0

    def rank(self, kept: int) -> None:
        for name, window in self.windows.items():
            importance = torch.stack(window).mean(0)
            self.sensitivity[name] = (
                self.beta1 * self.sensitivity[name] + (1 - self.beta1) * importance
            )
            change = (importance - self.sensitivity[name]).abs()
            self.uncertainty[name] = self.beta2 * self.uncertainty[name] + (1 - self.beta2) * change
            window.clear()
        scores = {name: self.sensitivity[name] * self.uncertainty[name] for name in self.weights}
        ranked = sorted(
            (
                (-float(score), name, i)
                for name in scores
                for i, score in enumerate(scores[name].view(-1))
            ),
        )
        for name, mask in self.masks.items():
            mask.fill_(False)
            for _, owner, index in ranked[:kept]:
                if owner == name:
                    mask.view(-1)[index] = True
            self.weights[name].data[~mask] = 0.0


def test_training_equals_the_formulas_on_plain_dictionaries() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    twin = copy.deepcopy(model)
    pruner = Platon(budget=FractionBudget(fraction=0.25), beta1=0.5, beta2=0.75)
    pruner.prepare(model)
    matrices = {name: twin.get_parameter(name) for name in ("0.weight", "2.weight")}
    reference = Reference(matrices, beta1=0.5, beta2=0.75)
    models: list[nn.Module] = [model, twin]
    optimizers = [torch.optim.AdamW(one.parameters(), lr=0.1) for one in models]
    came_back = 0
    for step in range(1, 31):
        inputs, targets = torch.randn(8, 6), torch.randn(8, 4)
        for one, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            functional.mse_loss(one(inputs), targets).backward()  # type: ignore[no-untyped-call]
        pruner.before_step()
        optimizers[0].step()
        pruner.after_step()
        optimizers[1].step()
        reference.after_step()
        if step % 4 == 0:
            before = {path: mask.clone() for path, mask in pruner.masks().items()}
            amount = min(1.0, step / 20)
            pruner.prune(amount)
            reference.rank(80 - int(60 * amount))  # 48 and 32 weights, of which 20 may stay
            came_back += sum(
                int((mask & ~before[path]).sum()) for path, mask in pruner.masks().items()
            )
        for name, weight in matrices.items():
            assert torch.equal(pruner.masks()[name], reference.masks[name])
            torch.testing.assert_close(model.get_parameter(name), weight)
    for name in matrices:
        sensitivity = model.get_buffer(f"{name}_sensitivity")
        torch.testing.assert_close(sensitivity, reference.sensitivity[name])
        uncertainty = model.get_buffer(f"{name}_uncertainty")
        torch.testing.assert_close(uncertainty, reference.uncertainty[name])
    assert came_back > 0
