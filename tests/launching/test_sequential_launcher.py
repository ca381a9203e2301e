"""``hydra/launcher=sequential``, the default, on an application that does what it is told."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from application import composed
from hydra.core.hydra_config import HydraConfig
from toy_jobs import APPLICATION, records

if TYPE_CHECKING:
    from pathlib import Path


def sweep(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(APPLICATION), "-m", f"hydra.sweep.dir={folder}"]
    return subprocess.run(
        [*command, "hydra/launcher=sequential", *overrides],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["train", "specialize"])
def test_sweeps_use_it_unless_told_otherwise(name: str) -> None:
    composed(config_name=name)
    assert HydraConfig.get().launcher._target_.endswith(".SequentialLauncher")


@pytest.mark.slow
def test_failure_is_told_at_once_and_the_rest_goes_on(tmp_path: Path) -> None:
    done = sweep(tmp_path, "act=raise,return", "value=7")
    output = tmp_path / "0" / "output.log"
    assert done.returncode == 1
    assert done.stderr == (
        f"failed: #0: 7 is refused. ({output})\n"
        f"error: 1 of 2 jobs failed; `multiprune status {tmp_path}` shows them.\n"
    )
    assert set(records(tmp_path)) == {1}
    assert "Traceback" in output.read_text()
    assert "There is more to say." in output.read_text()


@pytest.mark.slow
def test_sweep_whose_first_jobs_fail_alike_is_stopped(tmp_path: Path) -> None:
    done = sweep(tmp_path, "act=raise", "value=7,8,9", "hydra.launcher.fail_fast=2")
    assert done.returncode == 1
    assert done.stderr.splitlines()[2:] == [
        "error: Stopped by hydra.launcher.fail_fast, as the first 2 jobs failed alike: "
        f"8 is refused. (`multiprune status {tmp_path}` shows them.)"
    ]
    assert set(records(tmp_path, "begun")) == {0, 1}
