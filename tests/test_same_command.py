"""The same command twice, in different folders: the same files, in the same order of examples."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from application import NARROW, QUICK, results_of, run_in
from same_run import differences
from small_runs import FIXED, MASKS_FROM, pruned_by, pruners, rows
from tiers import slow

from multiprune.runs.record import TIMES
from multiprune.training.module import MultitaskModule

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from multiprune.tasks.task import Batch

SMALL = (*QUICK, *rows(train=32, validation=16, test=16))

#: Of weights, of gates that are drawn at random, of ranks, and of several passes a step.
FAST = ["movement", "structured_l0", "low_rank", "dynamic_sparsification"]


def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Tensor]]:
    """Return a list that the batches of training are appended to, by task."""
    seen: list[tuple[str, Tensor]] = []
    step = MultitaskModule.training_step

    def noting(self: MultitaskModule, batch: Batch, batch_idx: int) -> Tensor:
        seen.append((batch.task, batch.inputs["input_ids"].clone()))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(MultitaskModule, "training_step", noting)
    return seen


@pytest.fixture(scope="module")
def masks_from(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / MASKS_FROM


@pytest.mark.parametrize("pruner", [*FAST, *slow(*(one for one in pruners() if one not in FAST))])
def test_the_same_command_twice_leaves_the_same(
    pruner: str, masks_from: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = pruned_by(pruner, masks_from)
    if pruner == FIXED and not masks_from.exists():
        run_in(masks_from, *SMALL, *pruned_by(MASKS_FROM, masks_from))
    seen = trained_on(monkeypatch)
    run_in(tmp_path / "first", *SMALL, *settings)
    first = [*seen]
    seen.clear()
    run_in(tmp_path / "a" / "second", *SMALL, *settings)
    assert differences(tmp_path / "first", tmp_path / "a" / "second") == []
    assert len(first) == len(seen) == results_of(tmp_path / "first")["steps"]
    for (task, tokens), (expected, those) in zip(seen, first, strict=True):
        assert task == expected
        assert torch.equal(tokens, those)
    assert results_of(tmp_path / "first").keys() > set(TIMES)


def test_workers_that_make_batches_change_nothing_that_a_run_leaves(tmp_path: Path) -> None:
    run_in(tmp_path / "without", *SMALL, *NARROW)
    run_in(tmp_path / "with", *SMALL, *NARROW, "data.workers=2")
    # But that it had them.
    assert set(differences(tmp_path / "with", tmp_path / "without")) == {
        "results.json: config.data.workers",
        "results.json: settings.data.workers",
        *(
            f"checkpoints/{file.name}: hyper_parameters.config.data.workers"
            for file in (tmp_path / "with" / "checkpoints").iterdir()
        ),
    }


def written(run: Path, **results: object) -> Path:
    """Write what is compared of a run, but for what is in ``results``."""
    content = {"score": 0.5, "wall_seconds": 1.0, "config": {"folder": str(run)}} | results
    (run / "model").mkdir(parents=True)
    (run / "checkpoints").mkdir()
    (run / "results.json").write_text(json.dumps(content))
    (run / "metrics.csv").write_text("step,loss\n0,1.5\n1,1.25\n")
    (run / "model" / "model.safetensors").write_bytes(b"weights")
    callbacks = {"Stopwatch": {"seconds": str(run)}, "BestFinished": {f"{run}/best": str(run)}}
    checkpoint = {"state_dict": {"weight": torch.zeros(3)}, "callbacks": callbacks}
    torch.save(checkpoint, run / "checkpoints" / "last.ckpt")
    return run


def test_times_and_the_folder_itself_may_differ(tmp_path: Path) -> None:
    straight, other = written(tmp_path / "a"), written(tmp_path / "b" / "c", wall_seconds=9.0)
    assert differences(other, straight) == []


def test_all_else_that_differs_is_named(tmp_path: Path) -> None:
    straight = written(tmp_path / "a")
    other = written(tmp_path / "b", score=0.25, began="noon")
    assert differences(other, straight) == ["results.json: began", "results.json: score"]
    other = written(tmp_path / "c")
    (other / "metrics.csv").write_text("step,loss\n0,1.5\n1,1.125\n2,1.0\n")
    (other / "model" / "model.safetensors").write_bytes(b"others")
    torch.save({"state_dict": {"weight": torch.ones(3)}}, other / "checkpoints" / "last.ckpt")
    (other / ".model-0").mkdir()
    found = differences(other, straight)
    assert set(found) > {
        ".model-0 is left over",
        "model/model.safetensors: other bytes",
        "checkpoints/last.ckpt: state_dict.weight",
        "metrics.csv: step 1, loss: '1.125', not '1.25'",
        "metrics.csv: step 2, loss: '1.0', not None",
    }
    (other / "metrics.csv").unlink()
    assert "metrics.csv is missing" in differences(other, straight)
