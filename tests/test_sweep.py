"""Sweeps through ``train.py``, as a user starts them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from application import NARROW, ROOT, composed
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from omegaconf import OmegaConf

from multiprune.cli import main
from multiprune.runs.jobs import read_jobs
from multiprune.runs.status import read_status

if TYPE_CHECKING:
    from pathlib import Path

SWEEPS = sorted(
    file.stem for file in (ROOT / "sweep").glob("*.yaml") if not file.name.endswith(".wandb.yaml")
)
#: A sweep in stages is started once for each.
STAGES = [
    (name, stage)
    for name in SWEEPS
    for stage in (
        sorted(file.stem for file in (ROOT / "sweep" / "stage").glob("*.yaml"))
        if name == "sparse_transfer"
        else [None]
    )
]


def values_of(key: str, values: object) -> list[str]:
    """Return the overrides that a parameter of a sweep stands for."""
    (parsed,) = OverridesParser.create().parse_overrides([f"{key}={values}"])
    value = parsed.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    found = list(parsed.sweep_string_iterator()) if parsed.is_sweep_override() else [str(values)]
    return [f"{key}={one}" for one in found]


def test_there_are_sweeps() -> None:
    assert len(SWEEPS) >= 4


def content_of(*path: str) -> Any:
    return yaml.safe_load((ROOT / "sweep").joinpath(*path).with_suffix(".yaml").read_text())


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_every_value_of_a_sweep_composes(name: str, stage: str | None) -> None:
    content = content_of(name)
    assert content["defaults"][0] in ("train", "specialize")
    params = dict(content["hydra"]["sweeper"]["params"])
    given = []
    if stage is not None:
        params |= content_of("stage", stage)["hydra"]["sweeper"]["params"]
        given.append(f"stage={stage}")
    swept = [values_of(*one) for one in params.items()]
    # Not every job, but every value in some job.
    for index in range(max(map(len, swept))):
        job = [values[index % len(values)] for values in swept]
        tasks = next((one.partition("=")[2] for one in job if one.startswith("task=")), "demo")
        config = composed(*given, *job, config_name=name, directory="sweep")
        if content["defaults"][0] == "specialize":
            continue
        if tasks[0] == "[":
            assert list(config.task) == tasks[1:-1].split(",")
        assert set(config.data.cap) <= set(config.task)
        assert not OmegaConf.missing_keys(config)


REFUSAL = "`fraction` must be in (0, 1], but is 2.0."


def command(folder: Path, *overrides: str) -> list[str]:
    return [
        *(sys.executable, str(ROOT / "train.py"), "-cd", str(ROOT / "sweep")),
        *("-cn", "multitask_vs_ensemble", f"hydra.sweep.dir={folder}"),
        *("task=agreement", "pruner=magnitude", "seed=0", "trainer=cpu", "trainer.max_steps=2"),
        *("trainer.enable_progress_bar=false", *NARROW, *overrides),
    ]


def sweep(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *overrides),
        cwd=folder.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two jobs, one after another, of which the first is refused."""
    folder = tmp_path_factory.mktemp("first") / "runs"
    done = sweep(folder, "budget.fraction=2.0,0.5")
    assert done.returncode == 1
    told, end = done.stderr.splitlines()
    assert REFUSAL in told
    assert end == f"error: 1 of 2 jobs failed; `multiprune status {folder}` shows them."
    return folder


@pytest.mark.slow
def test_sweep_goes_on_after_a_failure_and_leaves_out_what_is_finished(first: Path) -> None:
    (results,) = first.rglob("results.json")
    assert json.loads(results.read_text())["budget"]["kept"] > 0
    before = results.read_bytes()
    assert {job.state: job.reason for job in read_jobs(first)} == {
        "failed": REFUSAL,
        "finished": "",
    }
    second = sweep(first, "budget.fraction=0.5,0.25")
    assert second.returncode == 0, second.stderr
    assert f"{results.parent.name} is finished already" in second.stdout
    assert results.read_bytes() == before
    assert len(list(first.rglob("results.json"))) == 2


@pytest.mark.slow
def test_jobs_side_by_side_do_as_they_do_one_after_another(first: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    launcher = ("hydra/launcher=gpus", "hydra.launcher.workers=2")
    done = sweep(folder, *launcher, "budget.fraction=2.0,0.5")
    assert done.returncode == 1
    assert REFUSAL in done.stdout
    assert "2 of 2 done, 0 running, 1 failed" in done.stdout
    assert done.stderr.startswith("error: 1 of 2 jobs failed")
    assert {job.state: job.reason for job in read_jobs(folder)} == {
        "failed": REFUSAL,
        "finished": "",
    }
    (results,) = folder.rglob("results.json")
    expected = json.loads((first / results.parent.name / results.name).read_text())
    ours = json.loads(results.read_text())
    for key in ("score", "validation", "test", "mask_sha256", "density"):
        assert ours[key] == expected[key]
    again = sweep(folder, *launcher, "budget.fraction=0.5")
    assert again.returncode == 0, again.stderr
    assert "is finished already" in (results.parent / "output.log").read_text()


def write_mirror(folder: Path, task: str) -> None:
    """Write as few rows of a task of two sentences as train and validate it."""
    rows = {"sentence1": ["it rains"] * 8, "sentence2": ["it pours"] * 8, "label": [0, 1] * 4}
    (folder / "glue" / task).mkdir(parents=True)
    for split in ("train", "validation"):
        pq.write_table(pa.table(rows), folder / "glue" / task / f"{split}.parquet")


def left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a report says of the runs that are not in it."""
    main(["report", str(folder), "--format", "csv"])
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1 + len(list(folder.rglob("results.json")))
    return printed.err


@pytest.mark.slow
def test_job_whose_data_have_vanished_fails_alone_and_is_run_when_they_are_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, mirror = tmp_path / "runs", tmp_path / "mirror"
    write_mirror(mirror, "rte")
    overrides = ["task=wnli,rte", "budget.fraction=0.5", f"data.mirror={mirror}"]
    overrides.append(f"data.cache={tmp_path / 'cache'}")
    done = sweep(folder, *overrides)
    assert done.returncode == 1, done.stderr
    sentence = (
        f"`data.mirror` must hold a folder 'glue/wnli', but {mirror}/glue/wnli does not exist."
    )
    assert {job.state: job.reason for job in read_jobs(folder)} == {
        "failed": sentence,
        "finished": "",
    }
    (results,) = folder.rglob("results.json")
    (missing,) = [one for one in folder.iterdir() if "wnli" in one.name]
    said = left_out(folder, capsys)
    assert f"Skipped: {missing}: unfinished: failed: {sentence}" in said
    before = results.stat().st_mtime_ns
    write_mirror(mirror, "wnli")
    again = sweep(folder, *overrides)
    assert again.returncode == 0, again.stderr
    assert [job.state for job in read_jobs(folder)] == ["finished", "finished"]
    assert results.stat().st_mtime_ns == before


@pytest.mark.slow
def test_job_that_was_killed_is_lost_and_continues_when_the_sweep_is_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs"
    overrides = ["hydra/launcher=gpus", "hydra.launcher.workers=1", "budget.fraction=0.5,0.25"]
    overrides += ["trainer.max_steps=60", "checkpoint.every_n_steps=5"]
    with subprocess.Popen(
        command(folder, *overrides),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        deadline = time.monotonic() + 120
        while not (begun := [*folder.rglob("last.ckpt")]) and time.monotonic() < deadline:
            time.sleep(0.01)
        killed = begun[0].parents[1]
        status = read_status(killed)
        assert status is not None
        os.kill(status.pid, signal.SIGKILL)
        output, errors = running.communicate(timeout=120)
    assert running.returncode == 1, errors
    assert "The process was killed by SIGKILL." in output
    assert {job.path: job.state for job in read_jobs(folder)}.pop(killed) == "lost"
    (results,) = folder.rglob("results.json")
    assert results.parent != killed
    assert f"Skipped: {killed}: unfinished: lost" in left_out(folder, capsys)
    again = sweep(folder, *overrides)
    assert again.returncode == 0, again.stderr
    assert [job.state for job in read_jobs(folder)] == ["finished", "finished"]
    # What the second start did not do.
    assert "is finished already" in (results.parent / "output.log").read_text()
    with (killed / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))
    assert json.loads((killed / "results.json").read_text())["steps"] == 60
