"""Handing over, and waiting, with commands that pretend to be those of Slurm."""

from __future__ import annotations

import platform
import stat
from typing import TYPE_CHECKING, Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from toy_jobs import pretend

from multiprune.launching import slurm_waiting
from multiprune.launching.job import Job, failed
from multiprune.launching.slurm import Handed, Slurm
from multiprune.launching.slurm_client import ask, largest_array
from multiprune.launching.slurm_job import (
    Limit,
    NotQueuedAgainError,
    own_cores,
    requeue,
)
from multiprune.launching.slurm_waiting import Waiting
from multiprune.runs.status import StatusFile, read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

NODE = platform.node()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which commands are looked for; ``srun`` is in it."""
    folder = tmp_path / "bin"
    pretend(folder, "srun", "exit 1")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def job(folder: Path) -> Job:
    overrides = {"hydra": {"overrides": {"task": [f"value={folder.name}"]}}}
    nothing: Any = None
    return Job(nothing, OmegaConf.create(overrides), folder, None, has_results=False)


def jobs(sweep: Path, count: int) -> list[Job]:
    return [job(sweep / str(number)) for number in range(count)]


def state(one: Job) -> tuple[str, str]:
    status = read_status(one.folder)
    assert status is not None
    return status.state, status.reason


def slurm(sweep: Path, *, at_a_time: int = 256) -> Slurm:
    return Slurm(sweep, Limit(3600, 120), {"array_parallelism": at_a_time})


def takes(tools: Path, arrays: int, refusal: str = "") -> None:
    """Have ``sbatch`` take so many, numbered from 1."""
    count = tools / "count"
    count.write_text("0")
    script = (
        f"read n < {count}; n=$((n + 1)); echo $n > {count}\n"
        f"if [ $n -gt {arrays} ]; then echo '{refusal}' >&2; exit 1; fi\n"
        "echo Submitted batch job $n"
    )
    pretend(tools, "sbatch", script)


def limits(tools: Path, *lines: str) -> None:
    pretend(tools, "scontrol", "\n".join(f"echo '{line}'" for line in lines))


def arrays_of(sweep: Path) -> list[str]:
    """Return the indices that were asked for, by submission."""
    scripts = sorted((sweep / ".slurm").glob("*/[0-9]*_submission.sh"))
    return [
        next((one for one in file.read_text().splitlines() if "--array" in one), "")
        .rpartition("=")[2]
        .strip("'")
        for file in scripts
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["MaxArraySize            = 4001", "MaxJobCount = 10"], 4001),
        (["MaxArraySize = 4001", "SchedulerParameters = a=1,max_array_tasks=300,b"], 300),
        (["MaxArraySize = 0"], 1),
        (["something else"], 1001),
    ],
)
def test_largest_array_is_the_one_that_slurm_is_configured_for(
    tools: Path, lines: list[str], expected: int
) -> None:
    limits(tools, *lines)
    assert largest_array() == expected


def test_largest_array_is_the_usual_one_where_slurm_does_not_tell(tools: Path) -> None:
    assert not (tools / "scontrol").exists()
    assert largest_array() == 1001


def test_secrets_of_jobs_are_for_their_owner_alone(tools: Path, tmp_path: Path) -> None:
    takes(tools, 9)
    sweep = tmp_path / "sweep"
    (sweep / ".slurm").mkdir(parents=True, mode=0o755)
    overrides = ["logger.mlflow.token=hunter2"]
    given = jobs(sweep, 2)
    for one in given:
        one.config.hydra.overrides.task = overrides
    slurm(sweep).submit(given[:1])
    slurm(sweep).submit(given)
    holding = [one for one in sweep.rglob("*") if one.is_file() and b"hunter2" in one.read_bytes()]
    assert len(holding) == 3
    assert {one.name.rpartition("_")[2] for one in holding} == {"submitted.pkl"}
    assert {stat.S_IMODE(one.stat().st_mode) for one in holding} == {0o600}
    folders = {sweep / ".slurm", *(one.parent for one in holding)}
    assert {stat.S_IMODE(one.stat().st_mode) for one in folders} == {0o700}


def test_grid_above_the_limit_is_handed_over_as_several_arrays(tools: Path, tmp_path: Path) -> None:
    # Indices 0, 1, 2.
    limits(tools, "MaxArraySize = 3")
    takes(tools, 9)
    sweep = tmp_path / "sweep"
    handed = slurm(sweep, at_a_time=5).submit(jobs(sweep, 7))
    assert [one.id for one in handed] == ["1_0", "1_1", "2_0", "2_1", "3_0", "3_1", "3_2"]
    # Together no more than five run.
    assert arrays_of(sweep) == ["0-1%1", "0-1%2", "0-2%2"]


def test_refusal_of_a_later_array_says_what_slurm_has(tools: Path, tmp_path: Path) -> None:
    limits(tools, "MaxArraySize = 2")
    refusal = "sbatch: error: AssocMaxSubmitJobLimit"
    takes(tools, 1, refusal)
    sweep = tmp_path / "sweep"
    all_jobs = jobs(sweep, 6)
    with pytest.raises(ValueError, match=r"Slurm has 2 of the 6 jobs, which go on") as raised:
        slurm(sweep).submit(all_jobs)
    problem = (
        f"Slurm has not taken the job: {refusal}. Sweep over a part of the grid, and over "
        "the rest when those jobs have ended."
    )
    assert str(raised.value).startswith(problem)
    assert [state(one) for one in all_jobs[1:3]] == [("waiting", ""), ("lost", problem)]


def test_machine_without_sbatch_leaves_no_job_waiting(tools: Path, tmp_path: Path) -> None:
    (one,) = jobs(tmp_path / "sweep", 1)
    problem = f"{NODE} has no `sbatch`, a command of Slurm's."
    with pytest.raises(ValueError, match="^" + problem):
        slurm(tmp_path / "sweep").submit([one])
    assert state(one) == ("lost", problem)
    assert not (tools / "sbatch").exists()


def test_command_that_fails_is_an_error_of_one_sentence(tools: Path) -> None:
    pretend(tools, "scancel", "echo one >&2; echo two >&2; exit 3")
    with pytest.raises(OSError, match=r"^`scancel` failed: two$"):
        ask("scancel", "7")


def test_node_without_scontrol_says_so(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not (tools / "scontrol").exists()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    one = job(tmp_path / "0")
    StatusFile(one.folder).begin()
    with pytest.raises(NotQueuedAgainError, match="no `scontrol`") as raised:
        requeue(one)
    assert state(one) == ("lost", str(raised.value))
    pretend(tools, "scontrol", f"echo $* > {tools}/asked")
    requeue(one)
    assert (tools / "asked").read_text() == "requeue 7\n"
    assert state(one) == (
        "waiting",
        "Its time limit was reached; it is requeued and will continue.",
    )


class Told:
    def __init__(self) -> None:
        self.outcomes: list[JobReturn] = []

    def started(self, position: int) -> None:
        raise AssertionError(position)

    def ended(self, _: int, outcome: JobReturn) -> None:
        self.outcomes.append(outcome)


class Again(Slurm):
    """Takes everything, as 8, 9 and so on."""

    def submit(self, jobs: Sequence[Job]) -> list[Handed]:
        self.asked["taken"].extend(jobs)
        return [Handed(self.sweep, str(7 + len(self.asked["taken"])))]


def pushed_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, resubmit: int, left: Callable[[], Any] | str
) -> tuple[int, JobReturn]:
    """Wait for a job that is never seen; return how often it was taken again, and its end.

    Args:
        left: what a job says in the end, or what Slurm says that it has done with it.
    """
    (one,) = jobs(folder, 1)
    one.wait(queued=True)
    known: Mapping[str, Any] = {}
    monkeypatch.setattr(slurm_waiting, "queue", lambda: known)
    monkeypatch.setattr(slurm_waiting, "state_of", lambda _: left)
    monkeypatch.setattr(Handed, "returned", lambda *_: None if isinstance(left, str) else left())
    again, told = Again(folder, Limit(1, 1), {"taken": []}), Told()
    handed = {0: Handed(folder, "7")}
    waiting = Waiting(handed, [one], slurm=again, resubmit=resubmit, seconds=0, observer=told)
    (returned,) = waiting.returns().values()
    assert told.outcomes == [returned]
    return len(again.asked["taken"]), returned


@pytest.mark.parametrize(
    ("said", "resubmit", "times"),
    [("PREEMPTED", 2, 2), ("NODE_FAIL", 1, 1), ("PREEMPTED", 0, 0), ("CANCELLED", 2, 0)],
)
def test_job_that_slurm_pushes_out_is_handed_over_again_so_often(
    said: str, resubmit: int, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, returned = pushed_out(tmp_path, monkeypatch, resubmit=resubmit, left=said)
    assert (again, returned.status) == (times, JobStatus.FAILED)
    assert f"Slurm has ended the job {7 + times}" in str(returned._return_value)


def test_job_that_its_node_could_not_queue_again_is_handed_over_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = NotQueuedAgainError("no scontrol")
    (one,) = jobs(tmp_path, 1)
    again, returned = pushed_out(tmp_path, monkeypatch, resubmit=3, left=lambda: failed(one, error))
    assert (again, returned._return_value) == (3, error)


@pytest.mark.parametrize(
    ("given", "usable", "cores"),
    [
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "8"}, 16, 4),
        ({"SLURM_CPUS_PER_TASK": "4"}, 2, 2),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_NTASKS_PER_NODE": "2"}, 16, 4),
        ({"SLURM_CPUS_ON_NODE": "1"}, 16, 1),
        ({}, 16, 16),
    ],
)
def test_threads_of_a_job_are_its_share_of_the_node(
    given: dict[str, str], usable: int, cores: int
) -> None:
    assert own_cores(given, usable) == cores
