"""``multiprune status`` on folders as runs leave them."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from typing import TYPE_CHECKING

import pytest
from run_folders import results, write

from multiprune.cli import main
from multiprune.runs.duration import duration
from multiprune.runs.frame import read_runs
from multiprune.runs.jobs import read_jobs, totals
from multiprune.runs.status import STATUS, Status, utc_now

if TYPE_CHECKING:
    from pathlib import Path

# No process has it: the largest is 2 ** 22.
NO_PID = 2**22 + 1


def unfinished(folder: Path, *overrides: str, **fields: object) -> None:
    write(folder, {}, *overrides)
    (folder / "results.json").unlink()
    now = utc_now().isoformat()
    status = Status(started=now, updated=now, pid=os.getpid(), host=platform.node())
    content = dataclasses.asdict(dataclasses.replace(status, **fields))  # type: ignore[arg-type]
    (folder / STATUS).write_text(json.dumps(content))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    content = results({"rte": 0.75}, kept=250_000)
    write(tmp_path / "9", content, "task=rte", "seed=9")
    going = {"step": 20, "total_steps": 120, "density": 0.5, "score": 0.7, "seconds_per_step": 60.0}
    unfinished(tmp_path / "10", "task=rte", "seed=10", **going)
    unfinished(tmp_path / "11", "task=rte", "seed=11", state="failed", reason="[It] was refused.")
    unfinished(tmp_path / "12", "task=rte", "seed=12", **(going | {"pid": NO_PID}))
    unfinished(tmp_path / "13", "task=rte", "seed=13", state="interrupted", step=5)
    (tmp_path / "14" / ".hydra").mkdir(parents=True)
    return tmp_path


def test_state_of_every_job_is_known_in_order(sweep: Path) -> None:
    jobs = read_jobs(sweep)
    assert [(job.path.name, job.state) for job in jobs] == [
        ("9", "finished"),
        ("10", "running"),
        ("11", "failed"),
        ("12", "lost"),
        ("13", "interrupted"),
        ("14", "unknown"),
    ]
    finished, running, failed, lost, _, unknown = jobs
    assert (finished.step, finished.total_steps, finished.score) == (12, 12, 0.75)
    assert finished.density == 0.25
    assert running.overrides == ("task=rte", "seed=10")
    assert running.seconds_left == pytest.approx(100 * 60, abs=5)
    assert failed.reason == "[It] was refused."
    assert (lost.step, lost.seconds_left) == (20, None)
    assert unknown.overrides == ()


def test_totals_count_the_states(sweep: Path) -> None:
    assert totals(read_jobs(sweep)) == (
        "6 jobs: 1 finished, 1 running, 1 failed, 1 interrupted, 1 lost, 1 unknown; those that run "
        "train for 1 h 40 min more."
    )
    assert totals(read_jobs(sweep / "9")) == "1 job: 1 finished."


def test_finished_run_is_finished_whatever_its_status_says(tmp_path: Path) -> None:
    unfinished(tmp_path / "run", pid=NO_PID)
    content = results({"rte": 0.75}, kept=10)
    (tmp_path / "run" / "results.json").write_text(json.dumps(content))
    (job,) = read_jobs(tmp_path)
    assert (job.state, job.score) == ("finished", 0.75)


def test_damage_is_told_and_no_more(sweep: Path) -> None:
    (sweep / "10" / STATUS).write_text("{")
    (sweep / "9" / "results.json").write_text("{")
    jobs = {job.path.name: job for job in read_jobs(sweep)}
    assert [jobs[name].state for name in ("9", "10", "11")] == ["unknown", "unknown", "failed"]
    assert "is damaged" in jobs["10"].reason
    assert "results.json is not JSON" in jobs["9"].reason


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    capsys.readouterr()
    main(["status", *map(str, arguments)])
    return capsys.readouterr().out.splitlines()


def test_table_shows_what_differs(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / "14" / ".hydra").rmdir()
    (sweep / "14").rmdir()
    lines = shown(capsys, sweep)
    rows = [line.split() for line in lines]
    assert rows[0] == ["job", "seed", "state", "step", "density", "score", "left"]
    assert rows[1] == ["9", "9", "finished", "12/12", "0.250", "0.7500"]
    assert rows[2][:6] == ["10", "10", "running", "20/120", "0.500", "0.7000"]
    assert rows[3] == ["11", "11", "failed", "0"]
    assert rows[4] == ["12", "12", "lost", "20/120", "0.500", "0.7000"]
    assert lines[6] == "1 failed: [It] was refused."
    assert lines[-1].startswith("train for") or lines[-1].startswith("5 jobs: 1 finished")


def test_named_sweep_fits_a_terminal_with_a_row_a_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = "`budget` must hold what is never pruned, " + "but it does not, " * 9 + "so: more."
    for seed in range(2):
        for pruner in ("low_rank_gradual", "structured_gradient"):
            own = (f"pruner={pruner}", "budget.fraction=0.025", f"seed={seed}")
            fixed = ("experiment=glue_core_minilm", "trainer.max_epochs=1")
            failed = {"state": "failed", "reason": long} if pruner[0] == "l" else {}
            going = {"step": 1000, "total_steps": 3048, "density": 0.5, "score": 0.7}
            name = f"fraction-0.025_pruner-{pruner}_seed-{seed}_0ffa"
            unfinished(tmp_path / name, *fixed, *own, **(failed or going))
    lines = shown(capsys, tmp_path)
    assert [line.split()[:2] for line in lines[:3]] == [
        ["pruner", "seed"],
        ["low_rank_gradual", "0"],
        ["low_rank_gradual", "1"],
    ]
    assert len(lines) == 1 + 4 + 1 + 1 + 1
    assert max(map(len, lines)) <= 80
    assert lines[5].startswith("2 failed: `budget` must hold what")
    assert lines[5].endswith("…")
    whole = " ".join(shown(capsys, tmp_path, "--reasons"))
    assert whole.count("so: more.") == 2
    assert "seed-1_0ffa: failed: `budget`" in whole


def test_many_overrides_share_a_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = "task.agreement.source.rows={train: 64, validation: 16, test: 16}"
    unfinished(tmp_path / "1", "task=agreement", rows, "logger=csv", "trainer=cpu", step=3)
    unfinished(tmp_path / "2", "task=roles", step=3)
    lines = shown(capsys, tmp_path)
    assert lines[0].split() == ["job", "overrides", "state", "step"]
    assert lines[1].split()[:3] == ["1", "task=agreement", "rows={train:"]
    assert [line.split()[:2] for line in lines].count(["2", "task=roles"]) == 1
    assert len(lines) <= 8


def test_json_holds_everything(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["status", str(sweep), "--format", "json"])
    content = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in content] == [job.state for job in read_jobs(sweep)]
    assert content[1]["overrides"] == ["task=rte", "seed=10"]
    assert content[1]["path"] == str(sweep / "10")


def test_report_says_why_runs_are_unfinished(sweep: Path) -> None:
    reasons = {one.path.name: one.reason for one in read_runs(sweep).skipped}
    assert reasons == {
        "10": "unfinished: running at step 20",
        "11": "unfinished: failed: [It] was refused.",
        "12": "unfinished: lost at step 20",
        "13": "unfinished: interrupted at step 5",
        "14": "unfinished: it has no results.json",
    }


def test_folder_without_runs_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="error: No runs found in"):
        main(["status", str(tmp_path)])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.6, "60 s"),
        (150, "2 min"),
        (6_000, "1 h 40 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
