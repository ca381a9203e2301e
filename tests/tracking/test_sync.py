"""``multiprune sync``, as far as it goes without a server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import wandb

from multiprune.tracking.sync import is_sent, offline_runs

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-c", "from multiprune.cli import main; main()", "sync"]


def write(run: Path, started: str, identity: str = "abcd1234") -> Path:
    file = run / "wandb" / f"offline-run-{started}-{identity}" / f"run-{identity}.wandb"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    return file


def mark_as_sent(file: Path, *, later: float = 10) -> None:
    mark = file.with_suffix(".wandb.synced")
    mark.write_bytes(b"")
    os.utime(mark, (0, file.stat().st_mtime + later))


def sync(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if "WANDB" not in key}
    environment |= {"HOME": str(home), "WANDB_MODE": "offline"}
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=120, check=False, cwd=home
    )


def test_runs_are_found_at_any_depth_by_the_time_of_their_start(tmp_path: Path) -> None:
    second = write(tmp_path / "sweep" / "0", "20260102_000000")
    first = write(tmp_path / "sweep" / "0", "20260101_235959")
    third = write(tmp_path / "one", "20260103_000000", "ffff0000")
    (tmp_path / "sweep" / "0" / "wandb" / "run-20260101_000000-online").mkdir()
    assert offline_runs(tmp_path) == [first, second, third]


def test_a_run_that_was_written_to_since_is_not_sent(tmp_path: Path) -> None:
    file = write(tmp_path, "20260101_000000")
    assert not is_sent(file)
    mark_as_sent(file)
    assert is_sent(file)
    mark_as_sent(file, later=-10)
    assert not is_sent(file)


def test_wandb_would_send_what_is_not_sent(tmp_path: Path) -> None:
    os.environ.pop("WANDB_RUN_ID", None)
    with wandb.init(mode="offline", dir=tmp_path, project="tests") as run:
        run.log({"loss": 0.5})
    (first,) = offline_runs(tmp_path)
    name = first.parent.name.replace("offline-run-2", "offline-run-1")
    earlier = shutil.copytree(first.parent, first.parent.with_name(name))
    mark_as_sent(earlier / first.name)
    said = sync(tmp_path, tmp_path, "--dry-run")
    assert said.returncode == 0, said.stderr
    assert said.stdout == "1 of 2 offline W&B runs were already uploaded.\n"
    assert first.parent.name in said.stderr
    assert earlier.name not in said.stderr


def test_without_a_key_it_says_so_in_one_sentence(tmp_path: Path) -> None:
    write(tmp_path / "run", "20260101_000000")
    said = sync(tmp_path, tmp_path)
    assert said.returncode == 2
    assert said.stderr == (
        "error: No W&B API key found: run `wandb login`, or set WANDB_API_KEY.\n"
    )


def test_nothing_left_to_send_needs_no_key(tmp_path: Path) -> None:
    mark_as_sent(write(tmp_path / "run", "20260101_000000"))
    said = sync(tmp_path, tmp_path)
    assert (said.returncode, said.stderr) == (0, "")


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"No offline W&B runs .* found in {tmp_path}"):
        offline_runs(tmp_path)
