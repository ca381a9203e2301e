"""Runs ``train.py`` and ``multiprune`` in this process, up to the first training step."""

from __future__ import annotations

import logging
import re
import runpy
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import hydra._internal.utils as internal
import pytest
from application import NARROW, ROOT
from hydra.core.global_hydra import GlobalHydra

import multiprune.run
from multiprune import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: What a table says in place of a part of the sentence: the input is right.
ACCEPTED = "accepted"

#: One task of few rows and an encoder of one narrow layer: what is refused late is refused soon.
SMALL = (
    *NARROW,
    "task=agreement",
    "++task.agreement.source.rows={train: 48, validation: 16, test: 16}",
    "trainer=cpu",
)

# Words of Python, torch and Hydra, which say nothing to who has given the input.
_INTERNAL = (
    *("Traceback", "<class", "object at 0x", "full_key", "__init__", "unexpected keyword"),
    *("has no attribute", "object is not", "has no len()", "Error loading", "object_type"),
    *("HYDRA_FULL_ERROR", "cannot merge", "KeyError", "Error in call to target"),
)


class BegunError(BaseException):
    """A run has come to its first training step."""


@dataclass(frozen=True)
class Ended:
    """How a command has ended: exit status None stands for input that is accepted."""

    status: int | None
    stderr: str


def train(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> Ended:
    """Run ``train.py`` in this process; a run that is accepted ends before it is trained."""

    def begin(_: object) -> NoReturn:
        raise BegunError

    def command() -> None:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")

    logged = ("hydra/job_logging=none", "hydra/hydra_logging=none", f"hydra.run.dir={folder}")
    with pytest.MonkeyPatch.context() as patch, _logging_as_it_was():
        patch.setattr(multiprune.run, "train", begin)
        patch.setattr(internal, "run_and_report", internal.run_and_report)
        patch.setattr(sys, "argv", ["train.py", *arguments, *logged])
        GlobalHydra.instance().clear()
        return _ended(capsys, command)


def multiprune_command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ended:
    """Run a command of ``multiprune`` in this process."""
    return _ended(capsys, lambda: cli.main([*map(str, arguments)]))


def _ended(capsys: pytest.CaptureFixture[str], command: Callable[[], None]) -> Ended:
    capsys.readouterr()
    try:
        command()
    except SystemExit as error:
        # Of a text, Python would exit with 1.
        status = error.code if isinstance(error.code, int) else 1
        return Ended(status, capsys.readouterr().err)
    except BegunError:
        pass
    return Ended(None, capsys.readouterr().err)


@contextmanager
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def check(ended: Ended, expected: str) -> None:
    """Check that input is accepted, or refused in one sentence that has ``expected`` in it."""
    if expected == ACCEPTED:
        assert ended.status is None, ended.stderr
        return
    assert ended.status is not None, "nothing was refused"
    check_sentence(ended.stderr, expected)
    assert ended.status == 2, f"exit status {ended.status}: {ended.stderr}"


def check_sentence(stderr: str, expected: str) -> None:
    """Check that what is said is one sentence, in words of those who have given the input."""
    assert len(stderr.splitlines()) == 1, stderr
    said = stderr.strip()
    assert said.startswith("error: "), said
    assert said.endswith("."), said
    assert not said.endswith(":."), said
    assert not any(word in said for word in _INTERNAL), said
    # A key or a type alone.
    assert re.fullmatch(r"error: \S+", said) is None, said
    assert expected in said, said
