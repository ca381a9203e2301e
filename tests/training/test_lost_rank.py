"""One of a run's processes is killed: what the others say, leave behind, and resume from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from application import ROOT, SMALL, results_of
from torch.distributed import DistBackendError

from multiprune.refusal import Refusal
from multiprune.runs.status import StatusFile, read_status
from multiprune.training import lost_rank
from multiprune.training.lost_rank import RankDiedError, watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from multiprune.runs.status import Status

GLOO = "[/src/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:2"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Three processes that a first one has started."""
    kept = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    yield kept
    for one in kept:
        one.kill()
        one.wait()


def trainer_of(started: list[subprocess.Popen[bytes]], *, rank: int = 0) -> Any:
    strategy = SimpleNamespace(launcher=SimpleNamespace(procs=started))
    return SimpleNamespace(global_rank=rank, world_size=4, strategy=strategy)


def begun(folder: Path) -> StatusFile:
    status = StatusFile(folder)
    status.begin()
    return status


@pytest.mark.parametrize("error", [RuntimeError(GLOO), DistBackendError("remote process exited")])
def test_first_process_names_the_one_that_was_killed_and_leaves_none(
    tmp_path: Path, started: list[subprocess.Popen[bytes]], error: Exception
) -> None:
    started[1].kill()
    with pytest.raises(Refusal) as ended, watched(trainer_of(started), StatusFile(tmp_path)):
        raise error
    assert ended.value.sentence == (
        f"Rank 2 of 4 (process {started[1].pid}) was killed by SIGKILL (out of memory?): start the "
        "same command again, with the same output folder, to resume the run."
    )
    assert str(ended.value.__cause__) == ended.value.sentence
    assert all(one.poll() is not None for one in started)


def test_one_that_is_bereft_is_not_to_blame(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    for at, code in ((0, lost_rank.BEREFT), (2, 1)):
        started[at].kill()
        started[at].wait()
        started[at].returncode = code
    with (
        pytest.raises(Refusal, match=r"Rank 3 of 4 \(process \d+\) ended with exit status 1, and"),
        watched(trainer_of(started), StatusFile(tmp_path)),
    ):
        raise RuntimeError(GLOO)


def test_other_errors_stay_as_they_are(
    tmp_path: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_rank, "_SECONDS_TO_END", 0.1)
    watching = watched(trainer_of(started), StatusFile(tmp_path))
    with pytest.raises(FloatingPointError, match="NaN"), watching:
        raise FloatingPointError("NaN in the loss")
    assert all(one.poll() is not None for one in started)


def test_run_that_ends_well_waits_for_nobody(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    with watched(trainer_of(started), StatusFile(tmp_path)):
        pass
    assert all(one.poll() is None for one in started)


def test_first_process_that_hangs_is_ended(
    tmp_path: Path,
    started: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    codes: list[int] = []
    left = threading.Event()

    def leave(code: int) -> None:
        codes.append(code)
        left.set()

    monkeypatch.setattr(lost_rank, "_SECONDS_BETWEEN_LOOKS", 0.05)
    monkeypatch.setattr(lost_rank, "_SECONDS_TO_END", 0.1)
    monkeypatch.setattr(os, "_exit", leave)
    with watched(trainer_of(started), begun(tmp_path)):
        started[0].kill()
        assert left.wait(20)
    assert set(codes) == {2}
    known = read_status(tmp_path)
    assert known is not None
    assert known.state == "failed"
    assert known.reason.startswith("Rank 1 of 4 (process ")
    assert f"error: {known.reason}\n" in capfd.readouterr().err
    assert all(one.poll() is not None for one in started)


def test_others_say_that_the_first_has_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    begun(tmp_path)
    file = tmp_path / "status.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pid": gone.pid}))
    monkeypatch.setenv("MULTIPRUNE_STARTED_BY", str(gone.pid))
    rank = trainer_of([], rank=1)
    with pytest.raises(Refusal) as ended, watched(rank, StatusFile(tmp_path, writes=False)):
        raise RuntimeError(GLOO)
    assert f"Rank 0 of 4 (process {gone.pid}) has died" in ended.value.sentence
    known = read_status(tmp_path)
    assert known is not None
    assert (known.state, known.reason) == ("failed", ended.value.sentence)
    # Once is enough.
    with pytest.raises(SystemExit) as silent, watched(rank, StatusFile(tmp_path, writes=False)):
        raise RuntimeError(GLOO)
    assert silent.value.code == lost_rank.BEREFT


def test_where_slurm_started_the_processes_it_knows_which_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4242")
    monkeypatch.setattr(lost_rank, "_SECONDS_TO_LEARN", 0.1)
    rank = trainer_of([], rank=3)
    with pytest.raises(RankDiedError) as ended, watched(rank, StatusFile(tmp_path)):
        raise RuntimeError(GLOO)
    assert str(ended.value).startswith(f"Rank 3 of 4 (process {os.getpid()} on ")
    assert "`sacct -j 4242` says which (" in str(ended.value)
    assert "start the same command again" in str(ended.value)


# Of each four tasks, 48 rows in batches of 16: 80 steps, whatever the number of devices.
def command(run: Path, devices: int) -> list[str]:
    small = [one for one in SMALL if one not in ("trainer=cpu", "trainer.max_epochs=1")]
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={devices}"]
    length = [f"trainer.max_epochs={10 * devices}", "checkpoint.every_n_steps=5"]
    pruning = ["pruner=movement", "budget.fraction=0.3", f"hydra.run.dir={run}"]
    return [sys.executable, str(ROOT / "train.py"), *ddp, *small, *length, *pruning]


ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def processes_of(run: Path) -> dict[int, int]:
    """Return the process of each rank of a run."""
    found = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            called = (process / "cmdline").read_text().split("\0")
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(str(run) in one for one in called):
            ranks = [one for one in environment if one.startswith(b"LOCAL_RANK=")]
            found[int(ranks[0].partition(b"=")[2]) if ranks else 0] = int(process.name)
    return found


def has_trained(known: Status | None, *, by: int) -> bool:
    if known is None or known.pid != by or known.total_steps is None:
        return False
    return known.step >= 10


def killed(run: Path, *, devices: int, rank: int) -> tuple[int, int, str]:
    """Kill a rank of a run once it trains; return its process, the exit status, what was said."""
    said = run.with_suffix(".said")
    with said.open("w") as file:
        first = subprocess.Popen(command(run, devices), env=ENVIRONMENT, stderr=file)
    try:
        deadline = time.monotonic() + 240
        while not has_trained(read_status(run), by=first.pid):
            assert first.poll() is None, said.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        processes = processes_of(run)
        assert sorted(processes) == list(range(devices))
        os.kill(processes[rank], signal.SIGKILL)
        first.wait(60)
    finally:
        first.kill()
        first.wait()
    until = time.monotonic() + 15
    while processes_of(run) and time.monotonic() < until:
        time.sleep(0.1)
    assert processes_of(run) == {}
    return processes[rank], first.returncode, said.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "ranks"), [(2, (1, 0)), (4, (2,))])
def test_killed_rank_is_named_and_the_same_command_ends_bit_for_bit(
    tmp_path: Path, devices: int, ranks: tuple[int, ...]
) -> None:
    whole = tmp_path / "whole"
    subprocess.run(
        command(whole, devices), env=ENVIRONMENT, check=True, capture_output=True, timeout=300
    )
    run = tmp_path / "run"
    for rank in ranks:
        process, code, said = killed(run, devices=devices, rank=rank)
        how = "was killed by SIGKILL" if rank else "has died"
        assert f"error: Rank {rank} of {devices} (process {process}) {how}" in said
        assert "Traceback" not in said
        assert said.count("error: ") == 1
        assert code == (2 if rank else -signal.SIGKILL)
        known = read_status(run)
        assert known is not None
        assert known.state == "failed"
        assert known.reason.startswith(f"Rank {rank} of {devices} (process {process}) ")
        assert known.reason.endswith("to resume the run.")
    subprocess.run(
        command(run, devices), env=ENVIRONMENT, check=True, capture_output=True, timeout=300
    )
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    first, resumed = results_of(whole), results_of(run)
    for name in ("score", "validation", "test", "mask_sha256", "budget", "steps", "density"):
        assert first[name] == resumed[name]
    weights = "model/model.safetensors"
    assert (whole / weights).read_bytes() == (run / weights).read_bytes()
