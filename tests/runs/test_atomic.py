from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import warnings
from typing import TYPE_CHECKING

import pytest
import torch
from full_disk import full_disk

from multiprune.runs import atomic
from multiprune.runs.atomic import atomic_file, leftovers
from multiprune.runs.masks import write_masks
from multiprune.runs.predictions import Answers, write_predictions
from multiprune.training import teacher_logits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NUMBERS = torch.arange(4000)
ANSWERS = Answers(NUMBERS, NUMBERS, NUMBERS)
#: More bytes than a limit of 500 allows, however they are deflated.
MASKS = {"layer": torch.rand(100, 100, generator=torch.Generator().manual_seed(0)) < 0.5}


def test_a_file_takes_the_place_of_another_which_is_moved(tmp_path: Path) -> None:
    file, moved = tmp_path / "a.txt", tmp_path / "b.txt"
    for text in ("first", "second", "third"):
        with atomic_file(file, moved_to=moved) as beside:
            beside.write_text(text)
            assert not file.exists() or file.read_text() != text
    assert (file.read_text(), moved.read_text()) == ("third", "second")
    assert len(list(tmp_path.iterdir())) == 2


def test_what_fails_changes_nothing(tmp_path: Path) -> None:
    file, moved = tmp_path / "a.txt", tmp_path / "b.txt"
    file.write_text("first")
    with (
        pytest.raises(OSError, match=r"a\.txt cannot be written: .*File too large\.$"),
        full_disk(after=10),
        atomic_file(file, moved_to=moved) as beside,
    ):
        beside.write_text("a" * 20)
    with pytest.raises(ZeroDivisionError), atomic_file(file) as beside:
        _ = beside.write_text("second") / 0
    assert file.read_text() == "first"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_system_that_tells_late_that_it_is_full_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OSError, match=r"cannot be written: .*No space left on device\.$"),
        atomic_file(tmp_path / "a.txt") as beside,
    ):
        beside.write_text("first")
    assert not list(tmp_path.iterdir())


def test_what_a_run_leaves_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with full_disk(after=500):
        with pytest.raises(OSError, match=r"predictions\.safetensors cannot be written: "):
            write_predictions(tmp_path, {"validation": {"rte": ANSWERS}})
        with pytest.raises(OSError, match=r"masks\.safetensors cannot be written: "):
            write_masks(tmp_path, MASKS)
    assert not list(tmp_path.iterdir())


def killed_while(write: Callable[[], None], *, after: int) -> None:
    """Have the system kill a copy of this process once it has written so many bytes to a file."""
    with warnings.catch_warnings():
        # What other threads do meanwhile is no matter: they are not copied.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            with full_disk(after=after):
                write()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGXFSZ


@pytest.mark.parametrize("name", ["predictions", "masks", "logits"])
def test_of_a_process_that_was_killed_while_it_wrote_the_next_leaves_nothing(
    name: str, tmp_path: Path
) -> None:
    def write() -> None:
        if name == "predictions":
            write_predictions(tmp_path, {"validation": {"rte": ANSWERS}})
        elif name == "logits":
            teacher_logits._write({"values": NUMBERS}, tmp_path / "logits.safetensors")
        else:
            write_masks(tmp_path, MASKS)

    killed_while(write, after=500)
    assert len(list(tmp_path.iterdir())) == 1
    write()
    assert [one.name for one in tmp_path.iterdir()] == [f"{name}.safetensors"]


def test_of_a_killed_writer_of_a_shared_file_the_next_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"

    def write() -> None:
        with atomic_file(file, is_shared=True) as beside:
            beside.write_bytes(b"a" * 1000)

    # Of another name, although it begins with this one.
    other = tmp_path / f".a.safetensors-b-{'0' * 32}"
    other.touch()
    for _ in range(2):
        killed_while(write, after=500)
        assert len({*tmp_path.iterdir()} - {other}) == 1
        assert leftovers(tmp_path, file.name) == sorted({*tmp_path.iterdir()} - {other})
    write()
    assert {*tmp_path.iterdir()} == {file, other}


def test_what_others_write_to_a_shared_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with atomic_file(file, is_shared=True) as first:
        first.write_text("first")
        with atomic_file(file, is_shared=True) as second:
            second.write_text("second")
            assert leftovers(tmp_path) == []
        assert file.read_text() == "second"
    assert file.read_text() == "first"
    assert [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_is_removed_is_taken_from_who_begins_to_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_folder: bool
) -> None:
    left, removed = tmp_path / f".a-{'0' * 32}", []
    left.mkdir() if is_folder else left.touch()
    remove = atomic._remove

    def noted(path: Path) -> None:
        if path == left:
            # Its writer would wait for this lock, and then see that it is gone.
            mark = os.open(path, os.O_RDONLY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(mark)
            removed.append(path)
        remove(path)

    monkeypatch.setattr(atomic, "_remove", noted)
    with atomic_file(tmp_path / "a", is_shared=True):
        assert removed == [left]
        assert not left.exists()


def test_a_shared_file_is_as_open_as_others(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a", is_shared=True) as beside:
        beside.write_text("a")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
