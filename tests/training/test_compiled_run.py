"""Training with a compiled encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from application import NARROW, QUICK, refused, results_of, run_in
from safetensors.torch import load_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_a_compiled_encoder_is_pruned_and_cut_as_one_that_is_not(tmp_path: Path) -> None:
    rows = "task.agreement.source.rows={train: 48, validation: 16, test: 16}"
    choices = [*QUICK, *NARROW, "task=agreement", rows, "pruner=structured", "budget.fraction=0.5"]
    run_in(tmp_path / "eager", *choices)
    torch._dynamo.reset()
    # The graphs of the compiler, run operation by operation: what they compute is the same.
    run_in(tmp_path / "compiled", *choices, "compile=eager")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    eager, compiled = (results_of(tmp_path / name) for name in ("eager", "compiled"))
    for key in ("mask_sha256", "validation", "test", "budget"):
        assert compiled[key] == eager[key]
    first, second = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("eager", "compiled")
    )
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-4, atol=1e-6)


def test_an_unknown_compiler_is_refused(tmp_path: Path) -> None:
    sentence = refused(tmp_path / "run", *QUICK, *NARROW, "compile=quickly")
    assert "`compile` must be one of " in sentence
    assert "inductor" in sentence
    assert "'quickly'" in sentence
