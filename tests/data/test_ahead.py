"""Processes that encode pieces beside the one that trains."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from streamed_world import TEXTS, data_module, encoded_pieces, read, streamed, take, write_lines

from multiprune.data.pieces import CorpusError

if TYPE_CHECKING:
    from multiprune.data.datamodule import MultitaskDataModule

# Begins workers, says which processes they are, and waits.
PROGRAM = """
import multiprocessing, sys, time
sys.path[:0] = {paths}
from pathlib import Path
from streamed_world import data_module, streamed, take, write_lines
if __name__ == "__main__":
    folder = Path({folder!r})
    task = streamed(write_lines(folder / "corpus"), workers=2)
    take(data_module(folder / "cache", task).train_dataloader(), 1)
    print(*(one.pid for one in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""


def workers() -> list[multiprocessing.process.BaseProcess]:
    return multiprocessing.active_children()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_workers_encode_ahead_what_would_be_encoded_without_them_and_end(tmp_path: Path) -> None:
    task = streamed(write_lines(tmp_path / "corpus"))
    expected = read(take(data_module(tmp_path / "none", task).train_dataloader(), 30))
    task = streamed(write_lines(tmp_path / "corpus"), workers=2)
    data: MultitaskDataModule = data_module(tmp_path / "cache", task)
    batches = data.train_dataloader()
    assert not workers()
    found = take(batches, 1)
    assert 1 <= len(workers()) <= 2
    # The group behind the first is encoded without being asked for a block.
    until = time.monotonic() + 60
    while encoded_pieces(tmp_path / "cache") < 4:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert encoded_pieces(tmp_path / "cache") == 4
    assert read(found + take(batches, 29)) == expected
    data.teardown("fit")
    assert not workers()


@pytest.mark.slow
def test_an_error_of_a_worker_is_that_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\n".join(TEXTS).encode() + b"\nbad \xff\n")
    data = data_module(tmp_path / "cache", streamed(str(tmp_path / "a.txt"), workers=1))
    with pytest.raises(CorpusError, match=r"UTF-8, but byte [\d,]+ of .*a\.txt is not\.$") as one:
        take(data.train_dataloader(), 15)
    data.on_exception(one.value)
    assert not workers()


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run(tmp_path: Path) -> None:
    task = streamed(write_lines(tmp_path / "corpus"), workers=1)
    data = data_module(tmp_path / "cache", task)
    batches = data.train_dataloader()
    take(batches, 1)
    (worker,) = workers()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match="One of 1 tokenization `workers` was killed"):
        take(batches, 30)
    data.teardown("fit")
    assert not workers()


@pytest.mark.slow
def test_workers_end_when_the_run_is_killed(tmp_path: Path) -> None:
    here = Path(__file__).parent
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(paths=[str(here), str(here.parent)], folder=str(tmp_path)))
    process = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert pids
    assert all(map(is_alive, pids))
    process.kill()
    process.communicate()
    until = time.monotonic() + 60
    while any(map(is_alive, pids)):
        assert time.monotonic() < until
        time.sleep(0.05)
