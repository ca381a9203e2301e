from __future__ import annotations

import errno
import os
import resource
import signal
import warnings
from typing import TYPE_CHECKING

import pytest
import torch
from full_disk import full_disk

from multiprune.runs.atomic import atomic_file
from multiprune.runs.masks import write_masks
from multiprune.runs.predictions import write_predictions
from multiprune.tasks.answers import Answers

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
        pytest.raises(OSError, match=r"a\.txt must be writable, but: .*File too large\.$"),
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
        pytest.raises(OSError, match=r"must be writable, but: .*No space left on device\.$"),
        atomic_file(tmp_path / "a.txt") as beside,
    ):
        beside.write_text("first")
    assert not list(tmp_path.iterdir())


def test_what_a_run_leaves_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with full_disk(after=500):
        with pytest.raises(OSError, match=r"predictions\.safetensors must be writable, but: "):
            write_predictions(tmp_path, {"validation": {"rte": ANSWERS}})
        with pytest.raises(OSError, match=r"masks\.safetensors must be writable, but: "):
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


@pytest.mark.parametrize("name", ["predictions", "masks"])
def test_of_a_process_that_was_killed_while_it_wrote_the_next_leaves_nothing(
    name: str, tmp_path: Path
) -> None:
    def write() -> None:
        if name == "predictions":
            write_predictions(tmp_path, {"validation": {"rte": ANSWERS}})
        else:
            write_masks(tmp_path, MASKS)

    killed_while(write, after=500)
    assert len(list(tmp_path.iterdir())) == 1
    write()
    assert [one.name for one in tmp_path.iterdir()] == [f"{name}.safetensors"]
