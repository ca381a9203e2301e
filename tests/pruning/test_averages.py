"""Averages of weights beside pruning: as sparse as the model, or refused in a sentence."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import structured_world
import test_contract
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from test_contract import FILES, STOP_STEP, TOTAL_STEPS
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import multiprune
from multiprune.budget import FractionBudget, FullBudget
from multiprune.pruning.fixed import Fixed
from multiprune.pruning.magnitude import Magnitude
from multiprune.pruning.none import NoPruning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch.optim import Optimizer

    from multiprune.pruning.pruner import Pruner

    World = tuple[nn.Module, Pruner, Optimizer, Callable[[int], None]]


#: Those that prune any linear layers; the others need an encoder.
PLAIN = {case.file for case in test_contract.cases()}


def world(file: Path) -> World:
    """Return a prepared model, its pruner, an optimizer that drives it, and a training step."""
    config = OmegaConf.load(file)
    places: Any = test_contract if file in PLAIN else structured_world
    model = places.Network()
    pruner = instantiate(config, budget=FractionBudget(fraction=0.5))
    pruner.prepare(model, model.encoder)
    optimizer = places.adamw(model.parameters())
    places.driver_of(pruner, optimizer)
    return model, pruner, optimizer, lambda step: places.one_step(model, optimizer, step)


def gradual_files() -> list[Path]:
    methods = {file: OmegaConf.load(file)["_target_"].rpartition(".")[2] for file in FILES}
    return [file for file, name in methods.items() if name not in ("NoPruning", "Fixed")]


every_gradual_method = pytest.mark.parametrize("file", gradual_files(), ids=lambda file: file.stem)


@every_gradual_method
def test_an_average_that_begins_before_the_end_is_refused(file: Path) -> None:
    model, _, _, step = world(file)
    with pytest.raises(ValueError, match=r"at step 0, .* schedule has ended at step 9, and"):
        AveragedModel(model)
    for number in range(4):
        step(number)
    with pytest.raises(ValueError, match=r"at step 4, would mix masks and shapes: make it once"):
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))


@every_gradual_method
def test_an_average_that_begins_at_the_end_meets_the_budget(file: Path) -> None:
    model, pruner, _, step = world(file)
    for number in range(STOP_STEP):
        step(number)
    average, seen = AveragedModel(model), []
    for number in range(STOP_STEP, TOTAL_STEPS):
        step(number)
        average.update_parameters(model)
        seen.append({path: one.detach().clone() for path, one in model.named_parameters()})
    expected = {path: torch.stack([one[path] for one in seen]).mean(0) for path in seen[0]}
    kept = pruner.ledger().kept_in("encoder_linear")
    model.load_state_dict(average.module.state_dict())
    for path, one in model.named_parameters():
        torch.testing.assert_close(one, expected[path], rtol=0, atol=1e-6)
    pruner.finalize()
    assert pruner.ledger().kept_in("encoder_linear") == kept
    assert structured_world.nonzero_weights(model.encoder) <= kept


def test_an_average_of_a_resumed_model_goes_on() -> None:
    file = next(file for file in FILES if file.stem == "structured_magnitude")
    model, _, optimizer, step = world(file)
    for number in range(10):
        step(number)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average.update_parameters(model)
    saved = copy.deepcopy([part.state_dict() for part in (model, optimizer, average)])
    resumed, _, its_optimizer, its_step = world(file)
    resumed.load_state_dict(saved[0])
    its_optimizer.load_state_dict(saved[1])
    its_average = AveragedModel(resumed, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    its_average.load_state_dict(saved[2])
    for take, one, its_model in ((step, average, model), (its_step, its_average, resumed)):
        take(10)
        one.update_parameters(its_model)
    test_contract.assert_same(its_average.module.state_dict(), average.module.state_dict())


@every_gradual_method
def test_an_average_from_before_prepare_is_refused_at_its_first_update(file: Path) -> None:
    places: Any = test_contract if file in PLAIN else structured_world
    model, other = places.Network(), places.Network()
    average, its_own = AveragedModel(model), AveragedModel(other)
    before = copy.deepcopy(average.module.state_dict())
    pruner = instantiate(OmegaConf.load(file), budget=FractionBudget(fraction=0.5))
    pruner.prepare(model, model.encoder)
    with pytest.raises(ValueError, match=r"made before pruner\.prepare\(model\), .* has ended\.$"):
        average.update_parameters(model)
    test_contract.assert_same(average.module.state_dict(), before)
    its_own.update_parameters(other)


@every_gradual_method
def test_an_average_does_not_follow_beyond_finalize(file: Path) -> None:
    model, pruner, _, step = world(file)
    for number in range(TOTAL_STEPS):
        step(number)
    average = AveragedModel(model)
    average.update_parameters(model)
    pruner.finalize()
    with pytest.raises(ValueError, match=r"before pruner\.finalize\(\), cannot follow the model"):
        average.update_parameters(model)
    after = AveragedModel(model)
    after.update_parameters(model)
    test_contract.assert_same(after.module.state_dict(), model.state_dict())


def test_where_nothing_is_pruned_averages_begin_at_any_time() -> None:
    masks = {
        f"{number}.weight": torch.rand(shape) < 0.5 for number, shape in ((2, (8, 6)), (4, (5, 8)))
    }
    pruners = [
        NoPruning(budget=FullBudget()),
        Magnitude(budget=FullBudget()),
        Fixed(budget=FractionBudget(fraction=0.9), mask=masks),
    ]
    for pruner in pruners:
        model = test_contract.network()
        pruner.prepare(model, model.encoder)
        optimizer = test_contract.momentum(model.parameters())
        test_contract.driver_of(pruner, optimizer)
        average = AveragedModel(model)
        test_contract.one_step(model, optimizer, 0)
        average.update_parameters(model)
        assert torch.equal(average.module.get_parameter("head.bias"), model.head.bias)


def test_an_average_is_not_saved_as_if_it_were_finished(tmp_path: Path) -> None:
    file = next(file for file in FILES if file.stem == "structured_magnitude")
    model, pruner, _, step = world(file)
    for number in range(TOTAL_STEPS):
        step(number)
    average = AveragedModel(model)
    with pytest.raises(ValueError, match=r"as of a copy or an average: load its state into the mo"):
        multiprune.save(tmp_path / "average", average.module.encoder)
    pruner.finalize()
    multiprune.save(tmp_path / "average", AveragedModel(model).module.encoder)
