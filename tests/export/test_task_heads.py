"""A task may have the name of anything that a module has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file
from shipped_world import TASKS, TOKENIZER
from torch import nn

import multiprune
from multiprune.export.checkpoint import save_model
from multiprune.export.onnx import export_onnx
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.models.task_heads import TaskHeads

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["type", "items", "keys", "values", "train", "training", "forward", "type_", "my-task", "T"]


def made(names: list[str]) -> MultitaskModel:
    torch.manual_seed(0)
    encoder = from_scratch(layers=1, hidden=8, heads=2, intermediate=8).model
    return MultitaskModel(encoder, dict.fromkeys(names, TASKS["classes"])).eval()


def test_heads_are_found_by_any_name() -> None:
    taken = [name for name in dir(nn.ModuleDict()) if name]
    linear = {name: nn.Linear(1, 1) for name in taken}
    heads = TaskHeads(linear)
    assert list(heads) == list(heads.keys()) == taken
    assert len(heads) == len(taken) == len(list(heads.parameters())) / 2
    assert all(heads[name] is one and name in heads for name, one in linear.items())
    assert dict(heads.items()) == linear
    del heads["type"]
    assert "type" not in heads


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", made(NAMES), TOKENIZER, dict.fromkeys(NAMES, TASKS["classes"]))
    return tmp_path / "model"


def test_a_folder_names_weights_by_task_and_gives_them_back(shipped: Path) -> None:
    expected = {
        f"{name}.output.{kind}": getattr(head.get_submodule("output"), kind)
        for name, head in made(NAMES).heads.items()
        for kind in ("weight", "bias")
    }
    held = load_file(shipped / "heads.safetensors")
    assert held.keys() == expected.keys()
    loaded = multiprune.load(shipped)
    for name in NAMES:
        for key in (f"{name}.output.weight", f"{name}.output.bias"):
            assert torch.equal(held[key], expected[key])
            assert torch.equal(loaded.heads.weights()[key], expected[key])
        assert list(loaded.only(name).heads) == [name]


@pytest.mark.slow
def test_onnx_answers_by_any_name(shipped: Path, tmp_path: Path) -> None:
    # Which compares its answers with PyTorch's.
    assert export_onnx(multiprune.load(shipped), tmp_path)


@pytest.mark.parametrize("name", ["a.b", "a/b", ""])
def test_names_that_cannot_be_part_of_a_key_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"no dot and no slash in it, but one is '{name}'"):
        made([name])
