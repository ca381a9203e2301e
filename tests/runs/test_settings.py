"""What tells runs apart: values that are given, and defaults where they are not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from typing import TYPE_CHECKING, Any

import pytest
from application import composed

from multiprune.config import plain
from multiprune.runs.settings import INCIDENTAL, difference, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def shout(text: str) -> str:
    return text.upper()


@dataclass(frozen=True)
class Layout:
    rows: int = 2
    names: Sequence[str] = ()


class Thing:
    def __init__(
        self,
        *,
        rate: float,
        bias: bool = False,
        shape: Sequence[int] = (3, 4),
        transform: Callable[[str], str] = shout,
        layout: Layout = Layout(rows=5),
    ) -> None: ...


@dataclass
class Parted:
    parts: dict[str, int] = field(default_factory=lambda: {"a": 1})


HERE = "test_settings"
THING = {"_target_": f"{HERE}.Thing", "rate": 0.1}


@pytest.mark.parametrize(
    "given",
    [
        {"bias": False},
        {"shape": [3, 4]},
        {"transform": {"_target_": "hydra.utils.get_method", "path": f"{HERE}.shout"}},
        {"layout": {"_target_": f"{HERE}.Layout", "rows": 5}},
        {"layout": {"_target_": f"{HERE}.Layout", "rows": 5, "names": []}},
    ],
    ids=str,
)
def test_a_default_that_is_given_makes_no_difference(given: dict[str, Any]) -> None:
    # Inside a list, as well.
    for first, second in ((THING, THING | given), ([THING], [THING | given])):
        assert difference({"pruner": first}, {"pruner": second}) is None
        assert difference({"pruner": second}, {"pruner": first}) is None


def test_another_value_than_the_default_is_a_difference() -> None:
    found = difference({"pruner": THING}, {"pruner": THING | {"bias": True}})
    assert found == ("pruner.bias", False, True)
    layout = {"layout": {"_target_": f"{HERE}.Layout"}}
    found = difference({"pruner": THING}, {"pruner": THING | layout})
    assert found == ("pruner.layout.rows", 5, 2)
    parted = {"_target_": f"{HERE}.Parted"}
    found = difference({"data": parted}, {"data": parted | {"parts": {"a": 2}}})
    assert found == ("data.parts.a", 1, 2)


def test_null_is_as_good_as_nothing_unless_the_default_is_something() -> None:
    assert difference({"retrieval": None}, {}) is None
    found = difference({"pruner": THING}, {"pruner": THING | {"bias": None}})
    assert found == ("pruner.bias", False, None)


def test_of_a_constructor_that_is_not_known_what_is_given_counts() -> None:
    unknown = {"_target_": "nowhere.Thing"}
    assert difference({"pruner": unknown}, {"pruner": unknown}) is None
    found = difference({"pruner": unknown}, {"pruner": unknown | {"rate": 1}})
    assert found == ("pruner.rate", None, 1)


def test_keys_of_the_root_have_the_defaults_of_the_schema() -> None:
    config = plain(composed())
    assert {"compile", "rank_every_n_steps"} <= config.keys()
    older = {key: value for key, value in config.items() if key != "rank_every_n_steps"}
    assert difference(older, config) is None
    assert difference(older, config | {"rank_every_n_steps": 7}) == ("rank_every_n_steps", 10, 7)


@pytest.mark.parametrize(
    "override",
    [
        "pruner.per_layer=false",
        "pruner.parts=[encoder_linear]",
        "optimizer.eps=1e-8",
        "data.sort_window=20",
        "data.evaluation_batch_size=64",
        "task.roles.loss_weight=1.0",
        "trainer.min_epochs=null",
        "trainer.inference_mode=true",
        "encoder.freeze_embeddings=false",
    ],
)
def test_defaults_of_what_runs_are_made_of_are_those_that_have_no_effect(override: str) -> None:
    given = plain(composed(f"++{override}"))
    left_out = json.loads(json.dumps(given))
    *above, name = override.partition("=")[0].split(".")
    del reduce(getitem, above, left_out)[name]
    assert difference(left_out, given) is None
    assert settings_of(left_out) == settings_of(given)


def test_what_is_incidental_makes_no_difference() -> None:
    trainer = ("trainer.log_every_n_steps=1", "trainer.profiler=simple")
    places = ("data.mirror=elsewhere", "data.cache=there", "logger=[csv,tensorboard]")
    ours = plain(composed(*trainer, *places, "checkpoint.every_n_steps=3"))
    assert difference(plain(composed()), ours) is None
    flat = settings_of(plain(composed("task=mlm_streamed")))
    ours = plain(composed("task=mlm_streamed", "task.mlm_streamed.source.workers=7"))
    assert difference(plain(composed("task=mlm_streamed")), ours) is None
    assert "task.mlm_streamed.source.workers" in flat
    assert "seed" not in INCIDENTAL
    # Of specialists, whose configuration has another root.
    study = {"run": "runs/one", "seed": 0, "mirror": None}
    assert difference(study, study | {"mirror": "elsewhere"}) is None
    assert difference(study, study | {"run": "runs/two"}) == ("run", "runs/one", "runs/two")


def test_class_that_was_renamed_is_the_same_setting() -> None:
    before = {"distillation": {"_target_": "multiprune.training.distillation.NoDistillation"}}
    now = {"distillation": plain(composed("distillation=none").distillation)}
    assert now != before
    assert difference(before, now) is None


def test_a_keyword_that_has_come_since_a_run_makes_no_difference_unless_it_is_given() -> None:
    before = plain(composed())
    recorded = settings_of(before)
    del recorded["data.sort_window"]
    quiet, given = (
        plain(composed(*overrides))
        for overrides in (
            ["trainer.log_every_n_steps=1"],
            ["trainer.log_every_n_steps=1", "data.sort_window=7"],
        )
    )
    assert difference(before, quiet, recorded=recorded) is None
    assert difference(before, given, recorded=recorded) == ("data.sort_window", None, 7)


def test_a_default_that_a_file_has_come_to_state_is_not_given() -> None:
    before = plain(composed("pruner=movement"))
    now = plain(composed("pruner=movement"))
    for part, name in (("data", "sort_window"), ("pruner", "parts"), ("optimizer", "betas")):
        del before[part][name]
    recorded = settings_of(before)
    stated = {"data.sort_window", "pruner.parts", "optimizer.betas"}
    # A run that was begun when the constructors did not know them.
    older = {key: value for key, value in recorded.items() if key not in stated}
    assert stated < recorded.keys()
    assert difference(before, now, recorded=older) is None
    now["optimizer"]["betas"] = [0.9, 0.98]
    found = difference(before, now, recorded=older)
    assert found == ("optimizer.betas", None, [0.9, 0.98])
