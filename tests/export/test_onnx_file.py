from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from multiprune.export import onnx_file
from multiprune.export.onnx import _quiet
from multiprune.export.onnx_file import write_program

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch.onnx import ONNXProgram


@pytest.fixture(scope="module")
def program() -> ONNXProgram:
    """Weights whose lengths take one, two and three bytes to say."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 100), nn.ReLU(), nn.Linear(100, 100))
    with _quiet():
        made = torch.onnx.export(model.eval(), (torch.ones(2, 3),), dynamo=True, verbose=False)
    assert made is not None
    return made


def weights(model: onnx.ModelProto, folder: Path) -> dict[str, NDArray[np.generic]]:
    initializers = model.graph.initializer
    return {one.name: numpy_helper.to_array(one, str(folder)) for one in initializers}


def test_file_is_what_torch_would_have_written(program: ONNXProgram, tmp_path: Path) -> None:
    program.save(str(tmp_path / "expected.onnx"))
    write_program(program, tmp_path / "found.onnx")
    expected, found = (onnx.load(tmp_path / f"{name}.onnx") for name in ("expected", "found"))
    assert len(weights(found, tmp_path)) == 6
    for name, weight in weights(expected, tmp_path).items():
        assert (weights(found, tmp_path)[name] == weight).all()
    for model in (expected, found):
        model.graph.ClearField("initializer")
        model.graph.ClearField("value_info")
    assert found == expected
    onnx.checker.check_model(tmp_path / "found.onnx", full_check=True)


def test_program_keeps_its_weights(program: ONNXProgram, tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_program(program, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_large_weights_go_into_a_second_file(
    program: ONNXProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(program, tmp_path / "one.onnx")
    total = sum(one.nbytes for one in weights(onnx.load(tmp_path / "one.onnx"), tmp_path).values())
    monkeypatch.setattr(onnx_file, "LARGEST", total + 1)
    write_program(program, tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == (tmp_path / "one.onnx").read_bytes()
    monkeypatch.setattr(onnx_file, "LARGEST", total)
    (tmp_path / "two").mkdir()
    write_program(program, tmp_path / "two" / "two.onnx")
    files = sorted((tmp_path / "two").iterdir())
    assert [file.name for file in files] == ["two.onnx", "two.onnx.data"]
    expected, found = (onnx.load(file) for file in (tmp_path / "one.onnx", files[0]))
    for name, weight in weights(expected, tmp_path).items():
        assert (weights(found, tmp_path / "two")[name] == weight).all()
