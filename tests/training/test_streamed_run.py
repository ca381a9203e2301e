"""Masked language modelling on a streamed corpus in whole runs."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from application import SMALL, run_in, run_interrupted
from masked_task import general_text
from safetensors.torch import load_file

from multiprune.tasks.masked_language import MaskedLanguage

if TYPE_CHECKING:
    from pathlib import Path


def small(folder: Path, *further: str) -> list[str]:
    """Return the settings of a run beside a supervised task, in which the stream wraps around."""
    mirror = folder / "mirror"
    if not mirror.is_dir():
        general_text(mirror)
    source = "task.mlm_streamed.source"
    return [
        *(one for one in SMALL if not one.startswith("task.") or "agreement" in one),
        "task=[agreement,mlm_streamed]",
        f"data.mirror={mirror}",
        f"data.cache={folder / 'cache'}",
        "data.max_length=16",
        "trainer.max_epochs=2",
        "checkpoint.every_n_steps=2",
        f"{source}.examples_per_epoch=90",
        f"{source}.workers=0",
        f"+{source}.piece_size=600",
        f"+{source}.buffer=2",
        *further,
    ]


def test_a_resumed_run_ends_as_one_that_was_not_stopped(tmp_path: Path) -> None:
    overrides = small(tmp_path)
    run_in(tmp_path / "straight", *overrides)
    run_interrupted(tmp_path / "stopped", *overrides, kind=MaskedLanguage, at=9)
    shutil.rmtree(tmp_path / "cache")
    run_in(tmp_path / "stopped", *overrides)
    straight, resumed = (
        json.loads((tmp_path / name / "results.json").read_text())
        for name in ("straight", "stopped")
    )
    for key in ("mask_sha256", "validation", "examples", "steps"):
        assert resumed[key] == straight[key]
    assert straight["examples"] == {"agreement": 48, "mlm_streamed": 90}
    # 3 and 6 batches an epoch.
    assert straight["steps"] == 18
    first, second = (
        load_file(tmp_path / name / "model" / "model.safetensors")
        for name in ("straight", "stopped")
    )
    assert [key for key in first if not first[key].equal(second[key])] == []


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_text_ends_a_run_with_one_sentence(tmp_path: Path, workers: int) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_bytes(b"the dog runs\n" * 300 + b"the d\xffg runs\n")
    overrides = small(
        tmp_path,
        f"task.mlm_streamed.source.files=[{lines}]",
        f"task.mlm_streamed.source.workers={workers}",
    )
    with pytest.raises(SystemExit, match=r"UTF-8, but byte 3,905 of .*lines\.txt is not\.$"):
        run_in(tmp_path / "run", *overrides)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
