"""Shapes in signatures are checked while tests run, and nowhere else."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from shape_checks import PACKAGES, checked
from torch import Tensor

import multiprune
from multiprune.budget.allocation import _unbeaten
from multiprune.models.low_rank import LowRankLinear
from multiprune.pruning.importance import Scores, input_gate_gradient
from multiprune.pruning.low_rank import first_order_change

SOURCE = Path(multiprune.__file__).parents[1]

REFUSED: dict[str, Callable[[], object]] = {
    "function": lambda: first_order_change(torch.ones(3, 2), torch.ones(2, 3)),
    "module": lambda: LowRankLinear(4, 3, 2)(torch.ones(5, 3)),
    "dataclass": lambda: Scores(*map(torch.ones, [(2,), (2, 4), (3, 4), (5,), (2,), ()])),
    "array": lambda: _unbeaten(*(np.ones(size, np.int64) for size in (2, 2, 3))),
}


@pytest.fixture(autouse=True)
def every_call_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shape_checks._ONE_IN", 1)


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_shapes_that_disagree_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(BeartypeCallHintViolation):
        call()


def test_result_of_another_shape_is_refused() -> None:
    linear = torch.nn.Linear(3, 2)
    assert input_gate_gradient(linear).tolist() == [0, 0, 0]
    linear.in_features = 4
    linear.weight.grad = torch.ones(2, 3)
    with pytest.raises(BeartypeCallHintViolation, match="dimension size 3"):
        input_gate_gradient(linear)


@pytest.mark.parametrize("package", PACKAGES)
def test_names_of_all_shapes_are_known(package: str) -> None:
    """Each module is imported, and a shape in names that it does not know is an error then."""
    files = (SOURCE / package.replace(".", "/")).glob("*.py")
    stating = [file.stem for file in files if "from jaxtyping" in file.read_text("utf-8")]
    assert stating
    for name in stating:
        importlib.import_module(f"{package}.{name}")


def test_shape_in_unknown_names_is_an_error() -> None:
    def halved(values: Tensor) -> Tensor:
        return values / 2

    halved.__annotations__ = {"values": 'Unknown[Tensor, "rows"]', "return": "Unknown"}
    with pytest.raises(NameError, match="Unknown"):
        checked(halved)


def test_without_the_tests_nothing_is_checked() -> None:
    code = (
        "import sys, torch\n"
        "from multiprune.pruning.low_rank import first_order_change\n"
        "assert not hasattr(first_order_change, '__wrapped__')\n"
        "assert 'beartype' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
