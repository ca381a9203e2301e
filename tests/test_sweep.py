"""Sweeps through ``train.py``, as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml
from application import ROOT, composed
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep

from multiprune.report.jobs import read_jobs

if TYPE_CHECKING:
    from pathlib import Path

SWEEPS = sorted(
    file.stem for file in (ROOT / "sweep").glob("*.yaml") if not file.name.endswith(".wandb.yaml")
)


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


@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_of_a_sweep_composes(name: str) -> None:
    content = yaml.safe_load((ROOT / "sweep" / f"{name}.yaml").read_text())
    assert "train" in content["defaults"]
    swept = [values_of(*one) for one in content["hydra"]["sweeper"]["params"].items()]
    # Not every job, but every value in some job.
    for index in range(max(map(len, swept))):
        job = [values[index % len(values)] for values in swept]
        tasks = next((one.partition("=")[2] for one in job if one.startswith("task=")), "demo")
        config = composed(*job)
        if tasks[0] == "[":
            assert list(config.task) == tasks[1:-1].split(",")
        assert set(config.data.cap) <= set(config.task)


REFUSAL = "`fraction` must be in (0, 1], but is 2.0."


def sweep(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [
        *(sys.executable, str(ROOT / "train.py"), "-cd", str(ROOT / "sweep")),
        *("-cn", "multitask_vs_ensemble", f"hydra.sweep.dir={folder}"),
        *("task=agreement", "pruner=magnitude", "seed=0", "trainer=cpu", "trainer.max_steps=2"),
        *("encoder.layers=1", "encoder.hidden=16", "encoder.heads=2", "encoder.intermediate=32"),
        *("+trainer.enable_progress_bar=false", *overrides),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder.parent, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two jobs, one after another, of which the first is refused."""
    folder = tmp_path_factory.mktemp("first") / "runs"
    done = sweep(folder, "budget.fraction=2.0,0.5")
    assert done.returncode != 0
    assert REFUSAL in done.stderr
    return folder


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


def test_jobs_side_by_side_do_as_they_do_one_after_another(first: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    launcher = ("hydra/launcher=gpus", "hydra.launcher.workers=2")
    done = sweep(folder, *launcher, "budget.fraction=2.0,0.5")
    assert done.returncode == 1
    assert REFUSAL in done.stdout
    assert "2 of 2 done, 0 running, 1 failed" in done.stdout
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
