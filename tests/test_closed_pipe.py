"""What is written into a pipe that nobody reads any more ends a command without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from application import ROOT, save_untrained

if TYPE_CHECKING:
    from pathlib import Path

MULTIPRUNE = ("-m", "multiprune")
TRAIN = (str(ROOT / "train.py"),)


def unread(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run Python with a standard output that is not read; return its status and what it says."""
    read, written = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
            env=os.environ | environment,
        )
    finally:
        os.close(written)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (*MULTIPRUNE, "--help"),
        (*MULTIPRUNE, "--version"),
        (*TRAIN, "--help"),
        (*TRAIN, "--cfg", "job"),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nothing_is_said_of_a_reader_that_is_gone(
    arguments: tuple[str, ...], unbuffered: str
) -> None:
    status, said = unread(*arguments, PYTHONUNBUFFERED=unbuffered)
    assert said == ""
    # Where nothing waits to be written, argparse itself ignores that it could not write.
    assert status == 1 or (unbuffered and MULTIPRUNE[0] in arguments and status == 0)


def test_python_itself_would_say_something() -> None:
    assert "BrokenPipeError" in unread("-c", "print('text')")[1]


def test_predictions_end_with_their_reader(tmp_path: Path) -> None:
    run = save_untrained(tmp_path / "run")
    (tmp_path / "texts.txt").write_text("the fox runs\n" * 200)
    options = ("--task", "agreement", "--input", str(tmp_path / "texts.txt"))
    assert unread(*MULTIPRUNE, "predict", str(run), *options) == (1, "")


def test_wrong_input_is_said_though_nobody_reads_the_output() -> None:
    status, said = unread(*MULTIPRUNE, "status", "nowhere")
    assert (status, said.startswith("error: ")) == (2, True)


def test_output_that_was_closed_before_is_no_defect() -> None:
    command = f"exec {sys.executable} -m multiprune --version >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
