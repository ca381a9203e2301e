"""Heads of a finished run are the beginning of those of the next."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch
from masked_task import masked_task

from multiprune.data.source import HubSource
from multiprune.export.checkpoint import save_model
from multiprune.metrics import Accuracy
from multiprune.models.encoder import pretrained
from multiprune.models.factory import multitask_model
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.tasks.classification import Classification, Regression
from multiprune.tasks.tagging import Tagging

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from multiprune.tasks.task import Task

COMMON: dict[str, Any] = {
    "text": ["sentence"],
    "label": "label",
    "metrics": {"accuracy": Accuracy()},
    "source": HubSource(path=None, mirror="nowhere"),
}
TASKS: dict[str, Task] = {
    "classes": Classification(labels=["a", "b", "c"], **COMMON),
    "number": Regression(minimum=0, maximum=5, **COMMON),
    "tags": Tagging(labels=["O", "B-x", "I-x"], **COMMON),
}


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, MultitaskModel]:
    """Leave the model of a run, whose biases are not those of a new head."""
    encoder = from_scratch(layers=1, hidden=8, heads=2, intermediate=8)
    model = MultitaskModel(encoder.model, TASKS)
    for head in model.heads.values():
        torch.nn.init.normal_(head.get_parameter("output.bias"))
    save_model(tmp_path / "model", model, encoder.tokenizer, TASKS)
    return tmp_path, model


def begun(run: Path, tasks: Mapping[str, Task], **options: Any) -> dict[str, Any]:
    return multitask_model(pretrained(str(run), **options), tasks).heads.weights()


@pytest.mark.parametrize("place", [".", "model"])
def test_tasks_of_the_same_name_and_labels_begin_with_them(
    place: str, run: tuple[Path, MultitaskModel], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder, model = run
    other = Classification(labels=["a", "b", "c"], **COMMON | {"text": ["title"], "label": "y"})
    found = begun(folder / place, TASKS | {"classes": other, "new": other})
    for name, one in model.heads.weights().items():
        assert torch.equal(found[name], one)
    assert caplog.messages == [f"{name}: head loaded from {folder / 'model'}." for name in TASKS]


@pytest.mark.parametrize(
    ("name", "task", "key"),
    [
        ("classes", Classification(labels=["a", "c", "b"], **COMMON), "labels"),
        ("classes", Tagging(labels=["a", "b", "c"], **COMMON), "kind"),
        ("number", Regression(minimum=1, maximum=5, **COMMON), "bounds"),
    ],
)
def test_others_begin_at_random_and_say_why(
    name: str,
    task: Task,
    key: str,
    run: tuple[Path, MultitaskModel],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    folder, model = run
    found = begun(folder, {name: task})[f"{name}.output.weight"]
    assert not torch.equal(found, model.heads.weights()[f"{name}.output.weight"])
    assert f"{name}: head initialized at random, as the {key} in" in caplog.text


def test_a_switch_leaves_them_out(
    run: tuple[Path, MultitaskModel], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder, model = run
    found = begun(folder, TASKS, carry_heads=False)
    assert not any(torch.equal(found[name], one) for name, one in model.heads.weights().items())
    assert caplog.messages == []


def test_damaged_heads_are_refused(run: tuple[Path, MultitaskModel]) -> None:
    folder, _ = run
    encoder = pretrained(str(folder))
    for name, message in (
        ("heads.safetensors", "is not a whole safetensors file"),
        ("heads.json", "does not describe the heads"),
    ):
        (folder / "model" / name).write_text("[1]")
        with pytest.raises(ValueError, match=rf"{name} {message}"):
            multitask_model(encoder, TASKS)


def test_the_switch_leaves_out_a_head_over_the_vocabulary_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    encoder = from_scratch(layers=1, hidden=8, heads=2, intermediate=8)
    tasks = {"mlm": masked_task()}
    model = MultitaskModel(encoder.model, tasks)
    save_model(tmp_path / "model", model, encoder.tokenizer, tasks)
    expected = model.heads.weights()["mlm.dense.weight"]
    assert torch.equal(begun(tmp_path, tasks)["mlm.dense.weight"], expected)
    assert caplog.messages == ["mlm: head initialized from the pretrained head."]
    found = begun(tmp_path, tasks, carry_heads=False)["mlm.dense.weight"]
    assert not torch.equal(found, expected)
