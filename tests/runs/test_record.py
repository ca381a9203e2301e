from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from run_folders import record_with

from multiprune.runs.record import SCHEMA, RunRecord, scores_by_task


def test_what_is_written_is_what_was_given(tmp_path: Path) -> None:
    results = record_with()
    results.write(tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    versions, machine = content.pop("versions"), content.pop("machine")
    assert content == {"schema": SCHEMA} | json.loads(json.dumps(asdict(results)))
    assert RunRecord.read(tmp_path) == results
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == version("torch")
    assert versions["multiprune"] == version("multiprune")
    assert machine["threads"] == torch.get_num_threads()
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_results_that_json_does_not_know_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        record_with(config={"where": tmp_path}).write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_no_half_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text = Path.write_text

    def half(self: Path, text: str) -> int:
        write_text(self, text[: len(text) // 2])
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="full"):
        record_with().write(tmp_path)
    assert not (tmp_path / "results.json").exists()
    monkeypatch.undo()
    record_with().write(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["score"] == 0.75


def test_scores_are_picked_by_split() -> None:
    logged = {
        "val/rte/accuracy": torch.tensor(0.5),
        "val/stsb/pearson": torch.tensor(1.0),
        "val/stsb/spearman": 0.75,
        "val/score": torch.tensor(0.75),
        "test/rte/accuracy": torch.tensor(0.25),
        "train/rte/loss": torch.tensor(2.0),
        "loss": torch.tensor(2.0),
        "density": 0.3,
        "density/encoder/0/weight": 0.3,
    }
    assert scores_by_task(logged, "val") == {
        "rte": {"accuracy": 0.5},
        "stsb": {"pearson": 1.0, "spearman": 0.75},
    }
    assert scores_by_task(logged, "test") == {"rte": {"accuracy": 0.25}}
    assert scores_by_task({}, "val") == {}
    assert all(type(one) is float for one in scores_by_task(logged, "val")["rte"].values())
