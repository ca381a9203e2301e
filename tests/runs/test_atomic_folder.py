from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from multiprune.runs.atomic import atomic_folder, leftovers

if TYPE_CHECKING:
    from pathlib import Path

LEFT = f".model-{'0' * 31}f"


def left_in(parent: Path, name: str = LEFT) -> Path:
    (parent / name).mkdir()
    (parent / name / "model.safetensors").write_bytes(b"half")
    return parent / name


def test_what_killed_processes_have_left_is_removed_by_the_next_write(tmp_path: Path) -> None:
    left = left_in(tmp_path)
    others = {left_in(tmp_path, name) for name in (f".sizes-{'1' * 32}", ".model-old", "model-x")}
    assert set(leftovers(tmp_path, "model")) == {left}
    with atomic_folder(tmp_path / "model") as beside:
        (beside / "config.json").write_text("{}")
    assert set(tmp_path.iterdir()) == {tmp_path / "model", *others}
    assert leftovers(tmp_path) == [tmp_path / f".sizes-{'1' * 32}"]


def test_a_link_is_no_leftover(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / LEFT).symlink_to(tmp_path / "kept")
    assert leftovers(tmp_path) == []


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "model") as first:
        (first / "config.json").write_text("first")
        assert leftovers(tmp_path) == []
        with atomic_folder(tmp_path / "other"):
            assert leftovers(tmp_path) == []
        with atomic_folder(tmp_path / "model", claim=lambda _: None) as second:
            assert second.name != first.name
        (tmp_path / "model").rename(tmp_path / "second")
    assert (tmp_path / "model" / "config.json").read_text() == "first"


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_the_next_removes(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from multiprune.runs.atomic import atomic_folder\n"
        "with atomic_folder(pathlib.Path(sys.argv[1])) as beside:\n"
        "    (beside / 'a').write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    for _ in range(2):
        command = [sys.executable, "-c", script, str(tmp_path / "model")]
        assert subprocess.run(command, check=False).returncode == -9
        assert len(leftovers(tmp_path)) == len([*tmp_path.iterdir()]) == 1
    with atomic_folder(tmp_path / "model"):
        pass
    assert [one.name for one in tmp_path.iterdir()] == ["model"]
