from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from omegaconf import OmegaConf

from multiprune.launching.lock import LOCK, SweepLock, lock

if TYPE_CHECKING:
    from pathlib import Path


def test_folder_is_locked_until_it_is_let_go(tmp_path: Path) -> None:
    descriptor = lock(tmp_path / "new")
    with pytest.raises(ValueError, match=f"process {os.getpid()} on "):
        lock(tmp_path / "new")
    descriptor.close()
    lock(tmp_path / "new").close()


def test_lock_of_a_process_that_was_killed_is_no_lock(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\nfrom multiprune.launching.lock import lock\n"
        "lock(pathlib.Path(sys.argv[1]))\nprint('locked', flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (run.stdout, run.returncode) == ("locked\n", -9)
    assert (tmp_path / LOCK).read_text()
    lock(tmp_path).close()


def test_owner_that_cannot_be_read_is_another(tmp_path: Path) -> None:
    descriptor = lock(tmp_path)
    (tmp_path / LOCK).write_text("{")
    with pytest.raises(ValueError, match="by another"):
        lock(tmp_path)
    descriptor.close()


def test_processes_after_the_first_of_a_job_take_part_in_its_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    first = SweepLock()
    first.on_multirun_start(config)
    with pytest.raises(SystemExit, match=r"error: .* is in use by another sweep"):
        SweepLock().on_multirun_start(config)
    monkeypatch.setenv("LOCAL_RANK", "1")
    second = SweepLock()
    second.on_multirun_start(config)
    second.on_multirun_end(config)
    first.on_multirun_end(config)


def test_a_callback_that_holds_a_lock_can_be_sent_to_another_process(tmp_path: Path) -> None:
    callback = SweepLock()
    callback.on_multirun_start(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    sent = pickle.loads(pickle.dumps(callback))
    sent.on_multirun_end(OmegaConf.create())
    with pytest.raises(ValueError, match="is in use by another sweep"):
        lock(tmp_path)
    callback.on_multirun_end(OmegaConf.create())
    lock(tmp_path).close()
