"""Sweeps through ``train.py``, as a user starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
