"""Sweeps through ``train.py``, as a user starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from application import ROOT, composed
from hydra.core.override_parser.overrides_parser import OverridesParser

SWEEPS = sorted(file.stem for file in (ROOT / "sweep").glob("*.yaml"))


def values_of(key: str, values: object) -> list[str]:
    """Return the overrides that a parameter of a sweep stands for."""
    (parsed,) = OverridesParser.create().parse_overrides([f"{key}={values}"])
    found = list(parsed.sweep_string_iterator()) if parsed.is_sweep_override() else [str(values)]
    return [f"{key}={value}" for value in found]


def test_there_are_sweeps() -> None:
    assert len(SWEEPS) >= 4


@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_of_a_sweep_composes(name: str) -> None:
    content = yaml.safe_load((ROOT / "sweep" / f"{name}.yaml").read_text())
    swept = [values_of(*one) for one in content["hydra"]["sweeper"]["params"].items()]
    # Not every job, but every value in some job.
    for index in range(max(map(len, swept))):
        job = [values[index % len(values)] for values in swept]
        tasks = next((one.partition("=")[2] for one in job if one.startswith("task=")), "demo")
        config = composed(*job)
        if tasks[0] == "[":
            assert list(config.task) == tasks[1:-1].split(",")
        assert set(config.data.cap) <= set(config.task)


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


def test_sweep_goes_on_after_a_failure_and_leaves_out_what_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    first = sweep(folder, "budget.fraction=2.0,0.5")
    assert first.returncode != 0
    assert "must be" in first.stderr
    (results,) = folder.rglob("results.json")
    assert json.loads(results.read_text())["budget"]["kept"] > 0
    before = results.read_bytes()
    second = sweep(folder, "budget.fraction=0.5,0.25")
    assert second.returncode == 0, second.stderr
    assert f"{results.parent.name} is finished already" in second.stdout
    assert results.read_bytes() == before
    assert len(list(folder.rglob("results.json"))) == 2
