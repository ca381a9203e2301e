"""``status.json``: what it says while a run goes on, and when that can no longer be so."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from multiprune.runs.status import (
    SILENCE,
    STATUS,
    Status,
    StatusFile,
    read_status,
    reason_unfinished,
    utc_now,
)

if TYPE_CHECKING:
    from pathlib import Path


def status(*, pid: int | None = None, host: str | None = None, silent_for: float = 0) -> Status:
    updated = (utc_now() - timedelta(seconds=silent_for)).isoformat()
    return Status(
        started=updated,
        updated=updated,
        pid=os.getpid() if pid is None else pid,
        host=platform.node() if host is None else host,
    )


def pid_of_ended() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = StatusFile(tmp_path / "run")
    file.begin()
    began = read_status(tmp_path / "run")
    assert began is not None
    assert (began.state, began.step, began.pid) == ("running", 0, os.getpid())
    file.update(step=3, total_steps=10, density=0.5, score=0.25, seconds_per_step=2.0)
    updated = read_status(tmp_path / "run")
    assert updated is not None
    assert (updated.step, updated.total_steps, updated.started) == (3, 10, began.started)
    assert [one.name for one in (tmp_path / "run").iterdir()] == [STATUS]


def test_first_word_on_the_end_is_the_last(tmp_path: Path) -> None:
    file = StatusFile(tmp_path)
    file.begin()
    file.end("failed", reason="It was too long.")
    file.update(step=7)
    file.end("interrupted")
    ended = read_status(tmp_path)
    assert ended is not None
    assert (ended.state, ended.reason, ended.step) == ("failed", "It was too long.", 0)
    file.begin()
    again = read_status(tmp_path)
    assert again is not None
    assert (again.state, again.reason) == ("running", "")


def test_run_that_did_not_begin_has_no_status(tmp_path: Path) -> None:
    StatusFile(tmp_path / "run").end("failed", reason="It was refused.")
    assert not (tmp_path / "run").exists()
    assert read_status(tmp_path) is None


def test_only_one_process_of_a_run_writes(tmp_path: Path) -> None:
    file = StatusFile(tmp_path, writes=False)
    file.begin()
    file.end("finished")
    assert not any(tmp_path.iterdir())


def test_run_goes_on_if_its_status_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    file = StatusFile(tmp_path / "file")
    file.begin()
    file.end("finished")
    assert "could not be written" in caplog.text


def test_running_process_is_not_lost_however_silent() -> None:
    assert not status(silent_for=10 * SILENCE.total_seconds()).is_lost(utc_now())


def test_run_whose_process_is_gone_is_lost() -> None:
    gone = status(pid=pid_of_ended())
    assert gone.is_lost(utc_now())
    assert not dataclasses.replace(gone, state="finished").is_lost(utc_now())


def test_process_that_its_parent_has_not_asked_about_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    # Its end closes the pipe.
    process.stdout.read()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert status(pid=process.pid).is_lost(utc_now())
    process.communicate()


def test_run_elsewhere_is_lost_when_it_is_silent() -> None:
    # What is here tells nothing of processes there.
    elsewhere = {"host": "elsewhere.example", "pid": pid_of_ended()}
    silence = SILENCE.total_seconds()
    assert not status(**elsewhere, silent_for=silence / 2).is_lost(utc_now())  # type: ignore[arg-type]
    assert status(**elsewhere, silent_for=2 * silence).is_lost(utc_now())  # type: ignore[arg-type]


def test_run_waits_for_this_process_or_in_a_queue(tmp_path: Path) -> None:
    file = StatusFile(tmp_path)
    file.wait()
    waiting = read_status(tmp_path)
    assert waiting is not None
    assert (waiting.state, waiting.pid) == ("waiting", os.getpid())
    assert not waiting.is_lost(utc_now())
    # Nobody is left to start it.
    assert dataclasses.replace(waiting, pid=pid_of_ended()).is_lost(utc_now())
    elsewhere = dataclasses.replace(waiting, host="elsewhere.example", updated="2026-01-01T00:00Z")
    assert not elsewhere.is_lost(utc_now())
    file.wait(queued=True)
    queued = read_status(tmp_path)
    assert queued is not None
    assert (queued.state, queued.host) == ("waiting", "")
    assert not queued.is_lost(utc_now())


def test_run_that_waits_to_go_on_is_as_far_as_it_was(tmp_path: Path) -> None:
    file = StatusFile(tmp_path)
    file.begin()
    file.update(step=65, score=0.5)
    file.end("interrupted")
    StatusFile(tmp_path).wait(reason="It was preempted.", queued=True)
    waiting = read_status(tmp_path)
    assert waiting is not None
    assert (waiting.state, waiting.step, waiting.score) == ("waiting", 65, 0.5)
    assert reason_unfinished(tmp_path) == "waiting at step 65: It was preempted."


@pytest.mark.parametrize("state", ["finished", "failed", "interrupted"])
def test_run_is_lost_only_if_it_has_not_said_what_became_of_it(tmp_path: Path, state: str) -> None:
    StatusFile(tmp_path).lose("It was never there.")
    assert read_status(tmp_path) is None
    file = StatusFile(tmp_path)
    file.begin()
    StatusFile(tmp_path).lose("Its node is gone.")
    lost = read_status(tmp_path)
    assert lost is not None
    assert (lost.state, lost.reason, lost.is_lost(utc_now())) == ("lost", "Its node is gone.", True)
    file.begin()
    file.end(state)
    StatusFile(tmp_path).lose("Its node is gone.")
    ended = read_status(tmp_path)
    assert ended is not None
    assert ended.state == state


def test_time_left_counts_from_the_last_word() -> None:
    known = dataclasses.replace(
        status(silent_for=30), step=10, total_steps=100, seconds_per_step=2.0
    )
    assert known.seconds_left(utc_now()) == pytest.approx(90 * 2 - 30, abs=2)
    assert dataclasses.replace(known, step=99).seconds_left(utc_now()) == 0
    assert dataclasses.replace(known, total_steps=None).seconds_left(utc_now()) is None
    assert dataclasses.replace(known, state="failed").seconds_left(utc_now()) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '"running"', '{"state": "running"}'])
def test_damage_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / STATUS).write_text(text)
    with pytest.raises(ValueError, match="is damaged"):
        read_status(tmp_path)


def test_fields_of_another_version_are_passed_over(tmp_path: Path) -> None:
    content = dataclasses.asdict(status()) | {"phase_of_the_moon": "full"}
    (tmp_path / STATUS).write_text(json.dumps(content))
    assert read_status(tmp_path) is not None
