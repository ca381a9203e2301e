"""``hydra/launcher=slurm`` on a real Slurm, where there is one.

``.ci/run`` starts one of its own; by hand: ``source`` what the local one says, and run this.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from application import ROOT, SMALL
from safetensors.torch import load_file
from toy_jobs import APPLICATION, pretend, records, wait_until

from multiprune.runs.jobs import read_jobs
from multiprune.runs.status import read_status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

HERE = Path(__file__).parent


def there_is_slurm() -> bool:
    if shutil.which("sbatch") is None:
        return False
    return subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not there_is_slurm(), reason="needs `sbatch` and a running Slurm"),
]

SLURM = (
    *("hydra/launcher=slurm", "hydra.launcher.poll=0.5", "hydra.launcher.memory=1G"),
    *("hydra.launcher.cpus_per_task=1", "hydra.launcher.time=5"),
)


def toy(folder: Path, *overrides: str) -> list[str]:
    return [
        *(sys.executable, str(APPLICATION), "-m", f"hydra.sweep.dir={folder}"),
        *(*SLURM, "hydra.launcher.gpus_per_node=1", *overrides),
    ]


def environment() -> dict[str, str]:
    """Let jobs import what lies here."""
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path}


def run(command: list[str], *, without: Collection[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
        env={key: one for key, one in environment().items() if key not in without},
    )


def queued(*options: str) -> list[str]:
    command = ["squeue", "--noheader", "--array", "--format=%i", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def submitted(folder: Path) -> list[str]:
    """Return what Slurm calls the arrays of a sweep."""
    scripts = (folder / ".slurm").glob("*/*_submission.sh")
    return sorted(one.name.partition("_")[0] for one in scripts if one.name[0] != ".")


def states(folder: Path) -> dict[str, str]:
    return {job.path.name: job.state for job in read_jobs(folder)}


def cancel(*arrays: str) -> None:
    subprocess.run(["scancel", *arrays], check=True)
    wait_until(lambda: not set(arrays) & {one.partition("_")[0] for one in queued()})


def test_jobs_run_two_at_a_time_each_on_a_gpu_of_its_own(tmp_path: Path) -> None:
    chosen = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")
    done = run(toy(tmp_path, "act=meet", "value=0,1,2,3"), without=chosen)
    assert done.returncode == 0, done.stderr
    jobs = records(tmp_path)
    assert set(jobs) == {0, 1, 2, 3}
    assert {job["devices"] for job in jobs.values()} == {"0", "1"}
    for first in jobs.values():
        for second in jobs.values():
            at_once = first["begun"] < second["begun"] < first["ended"]
            assert not (at_once and first["devices"] == second["devices"])
    assert {job["threads"] for job in jobs.values()} == {"1"}
    assert {job["waits"] for job in jobs.values()} <= {"PASSIVE", "30000"}  # by what else runs
    assert "4 of 4 done, 0 running, 0 failed" in done.stdout
    assert len(submitted(tmp_path)) == 1
    assert set(states(tmp_path).values()) == {"finished"}


def test_what_becomes_of_one_job_is_no_matter_to_the_others(tmp_path: Path) -> None:
    process = subprocess.Popen(
        toy(tmp_path, "act=raise,die,exit,wait,return", "value=7"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    wait_until(lambda: 3 in records(tmp_path, "begun"))
    (array,) = submitted(tmp_path)
    subprocess.run(["scancel", f"{array}_3"], check=True)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert errors == f"error: 4 of 5 jobs failed; `multiprune status {tmp_path}` shows them.\n"
    assert set(records(tmp_path)) == {4}
    failed = [line for line in output.splitlines() if line.startswith("failed")]
    said = {int(line[line.index("#") + 1]): line for line in failed}
    assert sorted(said) == [0, 1, 2, 3]
    assert f"#0 act=raise: 7 is refused. ({tmp_path / '0'})" in said[0]
    for number in (1, 2, 3):
        # Slurm calls one of them failed, one completed or failed, and one cancelled.
        assert f"Slurm has ended the job {array}_{number}" in said[number]
    expected = ["failed", "lost", "lost", "lost", "finished"]
    assert states(tmp_path) == {str(number): state for number, state in enumerate(expected)}
    assert "Traceback" in (tmp_path / "0" / "output.log").read_text()


def test_another_start_goes_on_where_the_one_that_was_killed_had_come(tmp_path: Path) -> None:
    first = subprocess.Popen(
        toy(tmp_path, "act=return,wait_for_go,die", "value=7"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    wait_until(lambda: set(records(tmp_path, "begun")) == {0, 1, 2})
    first.send_signal(signal.SIGKILL)
    first.wait()
    (array,) = submitted(tmp_path)
    wait_until(lambda: queued(f"--jobs={array}") == [f"{array}_1"])
    begun = records(tmp_path, "begun")
    second = subprocess.Popen(
        toy(tmp_path, "act=return,wait_for_go,die", "value=7"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    # What was running goes on. What had died is run again, and so is a toy: it leaves no results.
    wait_until(lambda: len(submitted(tmp_path)) == 2)
    (tmp_path / "go").touch()
    output, _ = second.communicate(timeout=120)
    assert "Handed 2 jobs over to Slurm" in output
    assert "0 jobs had ended before, and 1 were with Slurm." in output
    assert records(tmp_path, "begun")[1] == begun[1]
    assert set(records(tmp_path)) == {0, 1}
    assert "3 of 3 done, 0 running, 1 failed" in output


def test_jobs_of_other_overrides_are_not_taken_over(tmp_path: Path) -> None:
    detached = run(toy(tmp_path, "act=wait", "value=7,8", "hydra.launcher.detach=true"))
    assert detached.returncode == 0, detached.stderr
    arrays = submitted(tmp_path)
    try:
        other = run(toy(tmp_path, "act=wait", "value=8,7"))
        assert other.returncode == 1
        running = f"act=wait value=7 in {tmp_path / '0'}: `scancel {arrays[0]}_0`"
        assert f"Slurm already runs {running}" in other.stderr
        assert submitted(tmp_path) == arrays
    finally:
        cancel(*arrays)


def test_detached_sweep_goes_on_by_itself(tmp_path: Path) -> None:
    done = run(toy(tmp_path, "act=wait_for_go", "value=1,2", "hydra.launcher.detach=true"))
    assert done.returncode == 0, done.stderr
    assert f"`multiprune status {tmp_path}` shows them." in done.stdout
    assert set(states(tmp_path).values()) <= {"waiting", "running"}
    (tmp_path / "go").touch()
    wait_until(lambda: set(states(tmp_path).values()) == {"finished"})
    assert set(records(tmp_path)) == {0, 1}


def begin(command: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
    )


def test_sweep_whose_first_jobs_fail_alike_is_stopped(tmp_path: Path) -> None:
    done = run(toy(tmp_path, "act=raise,wait", "value=7,8", "hydra.launcher.fail_fast=2"))
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: Stopped by hydra.launcher.fail_fast, as the first 2 jobs failed alike: 8 is refused"
    )
    (array,) = submitted(tmp_path)
    wait_until(lambda: not queued(f"--jobs={array}"))
    assert [states(tmp_path)[one] for one in "01"] == ["failed", "failed"]
    assert {states(tmp_path)[one] for one in "23"} <= {"lost", "interrupted"}


def test_grid_that_no_array_holds_is_several(tmp_path: Path) -> None:
    pretend(tmp_path / "bin", "scontrol", "echo 'MaxArraySize            = 2'")
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    folder = tmp_path / "sweep"
    begun = begin(toy(folder, "act=return", "value=1,2,3,4,5"), PATH=path)
    output, errors = begun.communicate(timeout=120)
    assert begun.returncode == 0, errors
    assert set(records(folder)) == set(range(5))
    arrays = submitted(folder)
    assert len(arrays) == 3
    assert f"Handed 5 jobs over to Slurm, as {', '.join(sorted(arrays, key=int))}." in output


@pytest.fixture
def cancelling() -> Iterator[str]:
    """A partition whose jobs are cancelled, at once, to make room for those of another."""
    name = "multiprune_cancels"
    create = ["scontrol", "create", f"PartitionName={name}", "Nodes=ALL", "PriorityTier=1"]
    created = subprocess.run([*create, "PreemptMode=CANCEL", "GraceTime=0"], check=False)
    if created.returncode:
        pytest.skip("needs the right to create a partition")
    yield name
    subprocess.run(["scontrol", "delete", f"PartitionName={name}"], check=True)


def test_job_that_is_cancelled_to_make_room_is_handed_over_again(
    tmp_path: Path, cancelling: str
) -> None:
    where = f"hydra.launcher.partition={cancelling}"
    # It does not have itself queued again in time.
    waiting = begin(toy(tmp_path, "act=ignore_notice", "value=3", where))
    wait_until(lambda: 0 in records(tmp_path, "begun"))
    room = ["sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
    subprocess.run(room, check=True, stdout=subprocess.DEVNULL)
    wait_until(lambda: len(submitted(tmp_path)) == 2)
    (tmp_path / "go").touch()
    output, errors = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, errors
    assert "(1 of 5 times)" in output
    assert states(tmp_path) == {"0": "finished"}


def test_node_without_scontrol_leaves_what_another_start_goes_on_with(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "srun").symlink_to(str(shutil.which("srun")))
    folder = tmp_path / "sweep"
    job = toy(folder, "act=wait_for_go", "value=3", f"hydra.launcher.setup=['export PATH={tools}']")

    waiting = begin([*job, "hydra.launcher.resubmit=1"])
    for _ in range(2):
        wait_until(lambda: 0 in records(folder, "begun"))
        (folder / "0.begun").unlink()
        last = max(submitted(folder), key=int)
        subprocess.run(["scancel", "--signal=USR2", last], check=True)
    output, errors = waiting.communicate(timeout=120)
    assert waiting.returncode == 1, errors
    assert "(1 of 1 times)" in output
    assert "has no `scontrol`, a command of Slurm's." in output
    assert states(folder) == {"0": "lost"}
    (folder / "go").touch()
    again = run(job)
    assert again.returncode == 0, again.stderr
    assert states(folder) == {"0": "finished"}


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["hydra.launcher.partition=none"], "invalid partition specified: none"),
        (["hydra.launcher.sbatch.colour=red"], "unrecognized option '--colour=red'"),
        (["hydra.launcher.notice=240"], "Slurm may be early, but is 5 min with a notice of 240 s"),
        (["valeu=1"], "Could not override 'valeu'"),
        (
            ["hydra.launcher.resubmit=-1"],
            "`hydra.launcher.resubmit` must be a whole number of at least 0",
        ),
        (
            ["hydra.launcher.detach=true", "hydra.launcher.fail_fast=1"],
            "does not work with hydra.launcher.detach=true",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_job(
    tmp_path: Path, overrides: list[str], reason: str
) -> None:
    done = run(toy(tmp_path, "value=1,2", *overrides))
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not submitted(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["trainer.devices=2"], "must equal `hydra.launcher.tasks_per_node`, 1, but is 2."),
        (["trainer.num_nodes=2"], "must equal `hydra.launcher.nodes`, 1, but is 2."),
        (["hydra/sweeper=optuna_study"], "does not work with OptunaStudy, which waits for scores"),
    ],
)
def test_run_that_slurm_could_not_start_is_refused_before_any_job(
    tmp_path: Path, overrides: list[str], reason: str
) -> None:
    done = run(train(tmp_path, *SLURM, "hydra.launcher.detach=true", *overrides))
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not submitted(tmp_path)


def train(folder: Path, *overrides: str) -> list[str]:
    return [
        *(sys.executable, "train.py", "-m", f"hydra.sweep.dir={folder}", *SMALL, "seed=3"),
        *("data.batch_size=4", "checkpoint.every_n_steps=100", *overrides),
    ]


def left_by(folder: Path) -> dict[str, Any]:
    """Return what a run has left that must not depend on how it came about."""
    results = json.loads((folder / "results.json").read_text())
    for key in ("wall_seconds", "seconds_per_step", "config", "settings"):
        del results[key]
    with (folder / "metrics.csv").open() as file:
        # A row repeats the last loss of tasks that its step did not train, as far as it is known.
        rows = [
            {key: cell for key, cell in row.items() if not key.startswith("train/")}
            for row in csv.DictReader(file)
        ]
    return {"results": results, "metrics": rows}


WAIT = "+logger.wait={_target_: loggers_that_wait.WaitForSlurm, step: 7}"


@pytest.fixture(scope="module")
def never_interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    whole = run(train(folder, WAIT))
    assert whole.returncode == 0, whole.stderr
    return folder / "0"


def trains(folder: Path) -> bool:
    if not (folder / "status.json").exists():
        return False
    status = read_status(folder)
    return status is not None and status.total_steps is not None


def assert_equal_runs(first: Path, second: Path) -> None:
    assert left_by(second) == left_by(first)
    weights, others = (load_file(one / "model" / "model.safetensors") for one in (first, second))
    assert weights.keys() == others.keys()
    assert all(weights[key].equal(others[key]) for key in weights)


def test_run_whose_time_is_up_goes_on_bit_for_bit(tmp_path: Path, never_interrupted: Path) -> None:
    # Slurm, which looks at its limits every half minute, tells the job after half a minute or more.
    limit = ("hydra.launcher.time=2", "hydra.launcher.notice=59")
    done = run(train(tmp_path, WAIT, *SLURM, *limit))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "0" / "output.log").read_text().count("requeues this job") == 1
    assert_equal_runs(never_interrupted, tmp_path / "0")
    assert states(tmp_path) == {"0": "finished"}


def test_run_that_makes_room_goes_on_bit_for_bit(tmp_path: Path, never_interrupted: Path) -> None:
    process = subprocess.Popen(
        train(tmp_path, WAIT, *SLURM),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment(),
    )
    wait_until(lambda: trains(tmp_path / "0"))
    room = ["sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
    subprocess.run(room, check=True, stdout=subprocess.DEVNULL)
    assert process.wait(timeout=300) == 0
    assert (tmp_path / "0" / "output.log").read_text().count("requeues this job") == 1
    assert_equal_runs(never_interrupted, tmp_path / "0")


def test_run_that_gets_nowhere_in_its_time_is_not_run_for_ever(tmp_path: Path) -> None:
    # Told to stop while it is still being assembled, by itself rather than by Slurm.
    limit = ("hydra.launcher.time=4", "hydra.launcher.notice=179")
    stuck = "+logger.wait={_target_: loggers_that_wait.StopBeforeTheFirstStep}"
    done = run(train(tmp_path, stuck, *SLURM, *limit))
    assert done.returncode == 1
    assert "but after 4 min is at step 0, where it was before." in done.stdout
    assert states(tmp_path) == {"0": "failed"}


def test_finished_runs_are_not_handed_over_again(tmp_path: Path) -> None:
    short = ("trainer.max_epochs=-1", "trainer.max_steps=2")
    assert run(train(tmp_path, *short)).returncode == 0
    again = run(train(tmp_path, *short, *SLURM))
    assert again.returncode == 0, again.stderr
    assert "1 of 1 done, 0 running, 0 failed" in again.stdout
    assert not submitted(tmp_path)


def test_processes_of_a_run_are_those_that_slurm_starts(tmp_path: Path) -> None:
    ranks = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    ours = run(train(tmp_path / "ours", *ranks))
    assert ours.returncode == 0, ours.stderr
    slurms = run(train(tmp_path / "slurms", *ranks, *SLURM, "hydra.launcher.tasks_per_node=2"))
    assert slurms.returncode == 0, slurms.stdout + slurms.stderr
    assert_equal_runs(tmp_path / "ours" / "0", tmp_path / "slurms" / "0")
    assert (tmp_path / "slurms" / "0" / "output.1.log").exists()
