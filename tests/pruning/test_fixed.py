"""A fixed mask follows no schedule, so that the contract of the others does not fit it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from multiprune.budget import CountBudget, FractionBudget, FullBudget
from multiprune.pruning.fingerprint import mask_digest
from multiprune.pruning.fixed import Fixed
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.schedule import CubicSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch.optim import Optimizer

    from multiprune.budget import Budget

# Linear layers of 6 x 8 and 8 x 5 weights.
DENSE = 88


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Embedding(11, 6), nn.LayerNorm(6), nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5)
        )
        self.head = nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(tokens).mean(1))
        return logits


def masks() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "2.weight": torch.rand(8, 6, generator=generator) < 0.4,
        "4.weight": torch.rand(5, 8, generator=generator) < 0.2,
        # Not in scope, so left alone.
        "0.weight": torch.zeros(11, 6, dtype=torch.bool),
    }


def kept() -> int:
    return sum(int(masks()[path].sum()) for path in ("2.weight", "4.weight"))


def prepared(budget: Budget | None = None) -> tuple[Network, Fixed]:
    torch.manual_seed(0)
    model, pruner = Network(), Fixed(budget=budget or FractionBudget(fraction=0.5), mask=masks())
    pruner.prepare(model, model.encoder)
    return model, pruner


def train(
    model: Network, pruner: Fixed, make: Callable[[Iterable[Tensor]], Optimizer]
) -> Iterable[int]:
    optimizer = make(model.parameters())
    driver = GradualPruning(
        pruner, CubicSchedule(start=0.2, stop=0.7), total_steps=12, every_n_steps=2
    )
    driver.attach(optimizer)
    generator = torch.Generator().manual_seed(1)
    for step in range(12):
        optimizer.zero_grad()
        tokens = torch.randint(11, (4, 5), generator=generator)
        model(tokens).square().mean().backward()
        optimizer.step()
        yield step


def test_the_mask_holds_before_the_first_step() -> None:
    model, pruner = prepared()
    torch.manual_seed(0)
    untouched = Network()
    for path in ("2.weight", "4.weight"):
        weight, dense = (one.encoder.get_parameter(path) for one in (model, untouched))
        assert torch.equal(weight, dense * masks()[path])
    for path, parameter in untouched.named_parameters():
        if path not in ("encoder.2.weight", "encoder.4.weight"):
            assert torch.equal(model.get_parameter(path), parameter), path
    assert list(pruner.masks()) == ["encoder.2.weight", "encoder.4.weight"]


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda parameters: AdamW(parameters, lr=0.02, weight_decay=0.1),
    ],
    ids=["momentum", "adamw"],
)
def test_the_mask_stays_exactly_and_all_that_it_keeps_is_trained(
    make: Callable[[Iterable[Tensor]], Optimizer],
) -> None:
    model, pruner = prepared()
    expected = {f"encoder.{path}": masks()[path] for path in ("2.weight", "4.weight")}
    digest, before = mask_digest(expected), {}
    for path in expected:
        before[path] = model.get_parameter(path).detach().clone()
    for _ in train(model, pruner, make):
        assert mask_digest(pruner.masks()) == digest
        for path, mask in expected.items():
            weight = model.get_parameter(path)
            assert torch.equal(weight != 0, mask)
            assert (weight != before[path])[mask].all()
            before[path] = weight.detach().clone()
    pruner.finalize()
    assert mask_digest(pruner.masks()) == digest
    assert list(model.state_dict()) == list(Network().state_dict())


def test_the_ledger_tells_what_the_mask_leaves() -> None:
    _, pruner = prepared()
    ledger = pruner.ledger()
    assert 0 < kept() < DENSE / 2
    assert ledger.kept_in("encoder_linear") == kept()
    assert ledger.dense_in("encoder_linear") == DENSE
    assert ledger.kept["heads"] == ledger.dense["heads"]


def test_the_model_competes_from_its_first_epoch_on() -> None:
    _, pruner = prepared()
    driver = GradualPruning(pruner, CubicSchedule(start=0.1, stop=0.9), total_steps=100)
    assert driver.finished


def test_a_budget_may_be_just_what_the_mask_keeps_and_not_less() -> None:
    prepared(CountBudget(count=kept()))
    prepared(FullBudget())
    sentence = rf"keeps, {kept()} of 88 parameters \(encoder_linear\), but is {kept() - 1}\.$"
    with pytest.raises(ValueError, match=sentence):
        prepared(CountBudget(count=kept() - 1))


def test_masks_of_another_architecture_are_refused() -> None:
    model, other = Network(), masks() | {"2.weight": torch.ones(4, 6).bool()}
    sentence = r"for 2\.weight it is \(4, 6\) and should be \(8, 6\)\.$"
    with pytest.raises(ValueError, match=sentence):
        Fixed(budget=FullBudget(), mask=other).prepare(model, model.encoder)
    model, other = Network(), {"2.weight": masks()["2.weight"]}
    with pytest.raises(ValueError, match=r"for 4\.weight it is missing"):
        Fixed(budget=FullBudget(), mask=other).prepare(model, model.encoder)


def test_a_mask_that_keeps_everything_is_refused() -> None:
    everything = {path: torch.ones_like(mask) for path, mask in masks().items()}
    pruner, model = Fixed(budget=FullBudget(), mask=everything), Network()
    with pytest.raises(ValueError, match="prunes no weights of encoder_linear"):
        pruner.prepare(model, model.encoder)


def test_a_model_without_an_encoder_of_its_own_is_masked_as_a_whole() -> None:
    model = Network().encoder
    pruner = Fixed(budget=FractionBudget(fraction=0.5), mask=masks())
    pruner.prepare(model)
    assert list(pruner.masks()) == ["2.weight", "4.weight"]
    assert torch.equal(model.get_parameter("4.weight") != 0, masks()["4.weight"])


def test_skipped_step_changes_nothing() -> None:
    model, pruner = prepared()
    before = {key: one.clone() for key, one in model.state_dict().items()}
    pruner.before_step()
    pruner.skip_step()
    assert all(torch.equal(one, before[key]) for key, one in model.state_dict().items())
