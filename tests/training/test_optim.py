from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from multiprune.training.optim import AdamWRecipe, WarmupAndDecay


def recipe(**changed: Any) -> AdamWRecipe:
    settings: dict[str, Any] = {
        "learning_rate": 1e-3,
        "head_learning_rate": 1e-2,
        "weight_decay": 0.1,
        "warmup": 0.2,
    }
    return AdamWRecipe(**(settings | changed))


def encoder() -> nn.Sequential:
    return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))


def names_of(group: dict[str, Any], module: nn.Module) -> set[str]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {names[id(parameter)] for parameter in group["params"]}


def test_matrices_decay_and_vectors_do_not() -> None:
    model = nn.ModuleDict({"encoder": encoder(), "heads": nn.Linear(4, 2)})
    optimizer, _ = recipe().build(model["encoder"], model["heads"], 10)
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert {name: names_of(group, model) for name, group in groups.items()} == {
        "encoder": {"encoder.0.weight", "encoder.1.weight"},
        "encoder_no_decay": {"encoder.1.bias", "encoder.2.weight", "encoder.2.bias"},
        "heads": {"heads.weight"},
        "heads_no_decay": {"heads.bias"},
    }
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "encoder": 0.1,
        "encoder_no_decay": 0.0,
        "heads": 0.1,
        "heads_no_decay": 0.0,
    }
    assert {name: group["initial_lr"] for name, group in groups.items()} == {
        "encoder": 1e-3,
        "encoder_no_decay": 1e-3,
        "heads": 1e-2,
        "heads_no_decay": 1e-2,
    }


def test_each_trained_parameter_is_in_one_group() -> None:
    model = nn.ModuleDict({"encoder": encoder(), "heads": nn.Linear(4, 2)})
    model.get_parameter("encoder.0.weight").requires_grad_(False)
    optimizer, _ = recipe().build(model["encoder"], model["heads"], 10)
    grouped = [id(one) for group in optimizer.param_groups for one in group["params"]]
    trained = [id(one) for one in model.parameters() if one.requires_grad]
    assert len(trained) == 6
    assert sorted(grouped) == sorted(trained)


def test_a_tied_parameter_is_moved_once() -> None:
    tied = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4, bias=False))
    tied[1].weight = tied[0].weight
    optimizer, _ = recipe().build(tied, nn.Linear(4, 2), 10)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1, 1]


def test_frozen_parts_have_no_group() -> None:
    optimizer, _ = recipe().build(encoder().requires_grad_(False), nn.Linear(4, 2), 10)
    assert [group["name"] for group in optimizer.param_groups] == ["heads", "heads_no_decay"]


def test_settings_reach_the_optimizer() -> None:
    optimizer, _ = recipe(betas=(0.8, 0.9), eps=1e-6, fused=False).build(
        encoder(), nn.Linear(4, 2), 10
    )
    assert isinstance(optimizer, torch.optim.AdamW)
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"], group["fused"]) == ((0.8, 0.9), 1e-6, False)


@pytest.mark.parametrize(
    ("warmup", "fractions"),
    [
        (0.34, [1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4, 0, 0]),
        (0.0, [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0]),
        (0.9, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 0, 0]),
    ],
)
def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero(
    warmup: float, fractions: list[float]
) -> None:
    fraction = WarmupAndDecay(warmup, [6])
    assert [fraction(step) for step in range(8)] == pytest.approx(fractions)


@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
def test_no_step_is_above_the_peak_or_wasted_at_zero(warmup: float, total: int) -> None:
    _, schedule = recipe(warmup=warmup).build(encoder(), nn.Linear(4, 2), total)
    rates = [lambda_of(schedule)(step) for step in range(total)]
    assert max(rates) == 1.0
    assert min(rates) > 0.0


def lambda_of(schedule: torch.optim.lr_scheduler.LRScheduler) -> WarmupAndDecay:
    assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
    first = schedule.lr_lambdas[0]
    assert isinstance(first, WarmupAndDecay)
    return first


def test_warmup_is_a_share_of_all_steps() -> None:
    _, schedule = recipe(warmup=0.25).build(encoder(), nn.Linear(4, 2), 11)
    assert lambda_of(schedule).warmup == 0.25
    assert [lambda_of(schedule)(step) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_the_learning_rate_is_rewound_and_comes_down_again() -> None:
    _, schedule = recipe(warmup=0.5, rewinds=[0.0, 0.4]).build(encoder(), nn.Linear(4, 2), 10)
    # Four steps, two of them warm-up; six steps, three of them warm-up.
    expected = [1 / 3, 2 / 3, 1, 1 / 2, 1 / 4, 2 / 4, 3 / 4, 1, 2 / 3, 1 / 3, 0]
    assert [lambda_of(schedule)(step) for step in range(11)] == pytest.approx(expected)


def test_all_groups_follow_the_same_schedule() -> None:
    optimizer, schedule = recipe(warmup=0.2).build(encoder(), nn.Linear(4, 2), 10)
    rates = []
    for _ in range(3):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    expected = [[share * peak for peak in (1e-3, 1e-3, 1e-2, 1e-2)] for share in (1 / 3, 2 / 3, 1)]
    assert rates == [pytest.approx(row) for row in expected]


def test_the_schedule_survives_a_checkpoint() -> None:
    optimizer, straight = recipe().build(encoder(), nn.Linear(4, 2), 10)
    for _ in range(4):
        optimizer.step()
        straight.step()
    saved, saved_optimizer = straight.state_dict(), optimizer.state_dict()

    fresh, resumed = recipe(warmup=0.9).build(encoder(), nn.Linear(4, 2), 1000)
    fresh.load_state_dict(saved_optimizer)
    resumed.load_state_dict(saved)
    for _ in range(5):
        assert resumed.get_last_lr() == straight.get_last_lr()
        for one, schedule in ((optimizer, straight), (fresh, resumed)):
            one.step()
            schedule.step()
    # Step 9 of 10, of which two are warm-up: an eighth of the peak.
    assert resumed.get_last_lr() == pytest.approx([1e-3 / 8, 1e-3 / 8, 1e-2 / 8, 1e-2 / 8])


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"warmup": 1.0}, r"`warmup` must be in \[0, 1\), but is 1.0"),
        ({"warmup": -0.1}, r"`warmup` must be in \[0, 1\), but is -0.1"),
        ({"rewinds": [0.5, 0.2]}, r"`rewinds` must rise, but is \[0.5, 0.2\]"),
        ({"rewinds": [1.0]}, r"`rewinds` must be in \[0, 1\), but is 1.0"),
        ({"rewinds": 0.5}, "`rewinds` must be a list of numbers, but is 0.5"),
        ({"learning_rate": 0.0}, "`learning_rate` must be above 0, but is 0.0"),
        ({"head_learning_rate": -1.0}, "`head_learning_rate` must be above 0, but is -1.0"),
        ({"weight_decay": -0.5}, "`weight_decay` must be at least 0, but is -0.5"),
        ({"betas": [0.9, float("nan")]}, r"`betas` must be in \[0, 1\), but is nan"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        recipe(**changed)
