"""Every number that a user sets: nothing that is none passes, NaN least of all."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from multiprune.arguments import check_number
from multiprune.budget import FullBudget
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.none import NoPruning
from multiprune.pruning.schedule import LinearSchedule

CONF = Path(__file__).parents[1] / "conf"

GROUPS = (
    *("pruner", "pruner/groups", "schedule", "budget"),
    *("optimizer", "distillation", "data/mixing", "give_up"),
)


#: What else is set where nothing is composed.
OTHERS: dict[str, Any] = {
    "distillation": {"teacher": "unread", "temperature": 2.0, "weight": 0.5},
    "give_up": {"folder": "unread"},
}


def numbers(config: Any) -> dict[str, Any]:
    """Return the keywords that are numbers, by dotted path, of a class and of those within."""
    options = inspect.signature(get_object(config["_target_"])).parameters
    found = {name: one for name, one in options.items() if one.annotation in ("float", "int")}
    for key, value in config.items():
        if isinstance(value, dict) and "_target_" in value:
            found |= {f"{key}.{name}": one for name, one in numbers(value).items()}
    return found


def settings() -> list[tuple[str, str]]:
    files = [
        file for group in GROUPS
        for file in sorted((CONF / group).glob("*.yaml"))
    ]  # fmt: skip
    found = []
    for file in files:
        config = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        found += [(str(file.relative_to(CONF)), name) for name in numbers(config)]
    return found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", True])
@pytest.mark.parametrize(("file", "name"), settings())
def test_what_is_no_number_is_refused_by_name(file: str, name: str, value: object) -> None:
    others = {} if file == "distillation/self.yaml" else OTHERS.get(file.partition("/")[0], {})
    config: Any = OmegaConf.merge(OmegaConf.load(CONF / file), others)
    config.pop("defaults", None)
    OmegaConf.update(config, name, value)
    options = {"budget": FullBudget()} if file.count("/") == 1 and file.startswith("pruner") else {}
    with pytest.raises(Exception, match=rf"`{name.rpartition('.')[2]}` must be .*but is "):
        instantiate(config, **options)


def test_settings_are_found() -> None:
    assert ("pruner/soft_movement.yaml", "penalty") in settings()
    assert ("pruner/structured.yaml", "importance.smoothing") in settings()
    assert ("budget/fraction.yaml", "fraction") in settings()


@pytest.mark.parametrize("steps", [float("nan"), 2.5, True, 0])
def test_numbers_of_steps_are_whole(steps: Any) -> None:
    pruner, schedule = NoPruning(budget=FullBudget()), LinearSchedule(start=0.0, stop=1.0)
    for options in ({"total_steps": steps}, {"total_steps": 9, "every_n_steps": steps}):
        with pytest.raises(
            ValueError, match="_steps` must be a whole number of at least 1, but is "
        ):
            GradualPruning(pruner, schedule, **options)


@pytest.mark.parametrize(
    ("value", "bounds", "said"),
    [
        (1, {"above": 1}, "`x` must be above 1, but is 1."),
        (0.5, {"at_least": 1, "below": 2}, "`x` must be in [1, 2), but is 0.5."),
        (3, {"above": 1, "at_most": 2}, "`x` must be in (1, 2], but is 3."),
        (3, {"below": 3}, "`x` must be below 3, but is 3."),
        (4, {"at_most": 3}, "`x` must be at most 3, but is 4."),
        (float("nan"), {}, "`x` must be finite, but is nan."),
        (None, {"above": 0}, "`x` must be a number above 0, but is None."),
        ("1", {"above": 0}, "`x` must be a number above 0, but is '1'."),
        (
            1.5,
            {"at_least": 1, "whole": True},
            "`x` must be a whole number of at least 1, but is 1.5.",
        ),
    ],
)
def test_sentence_says_what_is_wrong(value: object, bounds: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        check_number("x", value, **bounds)
    assert str(error.value) == said
    check_number("x", 1.5, at_least=1.5, at_most=1.5)
    check_number("x", 2, above=1, below=3, whole=True)
