"""``hydra/launcher=gpus`` with pretended GPUs, on an application that does what it is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from toy_jobs import APPLICATION, is_alive, records, wait_until

from multiprune.cores import usable_cores

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def command(folder: Path, *overrides: str) -> list[str]:
    return [
        *(sys.executable, str(APPLICATION), "-m", f"hydra.sweep.dir={folder}"),
        *("hydra/launcher=gpus", "hydra.launcher.preload=[]"),
        "+hydra.callbacks.lock._target_=multiprune.launching.lock.SweepLock",
        *overrides,
    ]


def environment(devices: str | None = "0,1") -> dict[str, str]:
    kept = {key: one for key, one in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    return kept if devices is None else kept | {"CUDA_VISIBLE_DEVICES": devices}


def sweep(
    folder: Path, *overrides: str, devices: str | None = "0,1"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *overrides),
        env=environment(devices),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def begin(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """Start a sweep of jobs that wait, and return when two of them do."""
    process = subprocess.Popen(
        command(folder, "act=wait", *overrides),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: len(records(folder, "begun")) == 2)
    return process


def test_each_job_has_a_gpu_of_its_own_and_takes_the_next_free_one(tmp_path: Path) -> None:
    done = sweep(tmp_path, "act=meet", "value=0,1,2,3", devices="3,GPU-5f1a")
    assert done.returncode == 0, done.stderr
    jobs = records(tmp_path)
    assert set(jobs) == {0, 1, 2, 3}
    by_device = {
        device: sorted(
            (job["begun"], job["ended"]) for job in jobs.values() if job["devices"] == device
        )
        for device in ("3", "GPU-5f1a")
    }
    # Both were used, by one job at a time, and no job saw more than one.
    assert all(by_device.values())
    assert sum(map(len, by_device.values())) == 4
    for spans in by_device.values():
        assert all(first[1] <= second[0] for first, second in pairwise(spans))
    assert len({job["pid"] for job in jobs.values()}) == 4
    assert "4 of 4 done, 0 running, 0 failed" in done.stdout


def test_a_job_that_fails_or_is_killed_leaves_the_others_alone(tmp_path: Path) -> None:
    done = sweep(tmp_path, "act=raise,die,exit,unpicklable,return", "value=7")
    assert done.returncode == 1
    assert set(records(tmp_path)) == {4}
    lines = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    said = {line[line.index("#") + 1]: line for line in lines}
    assert sorted(said) == ["0", "1", "2", "3"]
    assert f"#0 act=raise: 7 is refused. ({tmp_path / '0' / 'output.log'})" in said["0"]
    assert "The process was killed by SIGKILL" in said["1"]
    assert "The process ended with exit code 3" in said["2"]
    assert "UnpicklableError: two words" in said["3"]
    assert "5 of 5 done, 0 running, 4 failed" in done.stdout
    assert done.stderr == (
        f"error: 4 of 5 jobs failed; `multiprune status {tmp_path}` shows them.\n"
    )
    output = (tmp_path / "0" / "output.log").read_text()
    assert output.startswith("job 0 prints\n")
    assert "Traceback" in output
    assert "There is more to say." in output


def test_processor_jobs_see_no_gpu_and_share_the_cores(tmp_path: Path) -> None:
    shared = environment()
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        shared.pop(name, None)
    run = subprocess.run(
        command(tmp_path, "act=meet", "value=1,2", "hydra.launcher.workers=2"),
        env=shared,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    each = ("", str(max(1, usable_cores() // 2)))
    jobs = records(tmp_path).values()
    assert [(job["devices"], job["threads"]) for job in jobs] == [each, each]
    assert {job["waits"] for job in jobs} < {"PASSIVE", "30000"}  # by what else runs


@pytest.mark.parametrize(
    ("overrides", "devices", "reason"),
    [
        (["value=1,2"], "", "found no GPU: set hydra.launcher.workers=N"),
        (["value=1,2", "hydra.launcher.workers=0"], "0", "a whole number of at least 1, but is 0"),
        (["valeu=1,2"], "0", "Could not override 'valeu'"),
        (["value=1,two"], "0", "Value 'two' of type 'str' could not be converted"),
    ],
)
def test_what_cannot_be_is_refused_before_any_job(
    tmp_path: Path, overrides: list[str], devices: str, reason: str
) -> None:
    subdir = "hydra.sweep.subdir=${hydra.job.override_dirname}"
    done = sweep(tmp_path, *overrides, subdir, devices=devices)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not records(tmp_path, "begun")


def test_sweep_whose_first_jobs_fail_alike_is_stopped(tmp_path: Path) -> None:
    done = sweep(tmp_path, "act=raise,wait", "value=7,8,9", "hydra.launcher.fail_fast=3")
    assert done.returncode == 1
    assert done.stderr == (
        "error: Stopped by hydra.launcher.fail_fast, as the first 3 jobs failed alike: "
        f"9 is refused. (`multiprune status {tmp_path}` shows them.)\n"
    )
    begun = records(tmp_path, "begun")
    assert {0, 1, 2} <= set(begun) < set(range(6))
    assert not any(is_alive(job["pid"]) for job in begun.values())


def test_jobs_of_one_folder_do_not_write_over_each_other(tmp_path: Path) -> None:
    done = sweep(tmp_path, "value=1,2,1", "hydra.sweep.subdir=${hydra.job.override_dirname}")
    assert done.returncode == 1
    assert set(records(tmp_path)) == {0, 1}
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert f"#2 value=1: A job needs a folder of its own, but {tmp_path / 'value=1'} is" in line


def test_second_sweep_into_a_folder_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    first = begin(tmp_path, "value=1,2,3")
    try:
        second = sweep(tmp_path, "value=1,2")
        assert second.returncode == 1
        assert second.stderr == (
            f"error: {tmp_path} is in use by another sweep, process {first.pid} on "
            f"{os.uname().nodename}: wait for it, or choose another folder.\n"
        )
        assert set(records(tmp_path, "begun")) == {0, 1}
    finally:
        first.kill()
        first.communicate()
    # Nobody had the time to clear anything away.
    assert sweep(tmp_path, "value=1,2").returncode == 0


def test_interrupt_ends_all_jobs(tmp_path: Path) -> None:
    process = begin(tmp_path, "value=1,2,3,4")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == "The sweep and its running jobs were interrupted.\n"
    begun = records(tmp_path, "begun")
    assert set(begun) == {0, 1}
    assert not any(is_alive(job["pid"]) for job in begun.values())


def test_jobs_end_when_the_launcher_is_killed(tmp_path: Path) -> None:
    process = begin(tmp_path, "value=1,2,3,4")
    process.kill()
    process.communicate(timeout=60)
    begun = records(tmp_path, "begun")
    wait_until(lambda: not any(is_alive(job["pid"]) for job in begun.values()))
    assert set(records(tmp_path, "begun")) == {0, 1}
