"""The command line itself; everything behind it is tested in ``test_run.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from application import ROOT, SMALL

if TYPE_CHECKING:
    from pathlib import Path


def train(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_command_runs_and_says_where_its_folder_is(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = train(*SMALL, "pruner=magnitude", "budget.fraction=0.25", f"hydra.run.dir={folder}")
    assert run.returncode == 0, run.stderr
    results = json.loads((folder / "results.json").read_text())
    assert results["budget"]["kept"] == results["budget"]["asked"]
    assert f"{results['budget']['kept']:,}" in run.stdout
    assert str(folder) in run.stdout
    assert (folder / ".hydra" / "config.yaml").is_file()


def test_wrong_input_is_one_sentence_and_a_failure(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = train("budget.fraction=2", f"hydra.run.dir={folder}")
    assert run.returncode == 2
    assert run.stderr.strip() == "error: `fraction` must be in (0, 1], but is 2."
    assert not folder.exists()


def test_misspelt_key_is_a_failure_without_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = train("bugdet.fraction=0.5", f"hydra.run.dir={folder}")
    assert run.returncode == 2
    assert "bugdet" in run.stderr
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "hydra.run.dir=/proc/run",
            "`hydra.run.dir` must be a folder that can be written, but /proc",
        ),
        ("hydra.run.dir=FILE", "`hydra.run.dir` must be a folder that can be written, but "),
        ("trainer.accelerator=tpu", "`trainer` must suit this machine, but: "),
        ("task=nowhere", "`task` must be one of ag_news, "),
    ],
)
def test_what_cannot_be_is_refused_by_a_sentence(
    tmp_path: Path, override: str, sentence: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    folder = tmp_path / "run"
    done = train(*SMALL, f"hydra.run.dir={folder}", override.replace("FILE", str(file)))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}")
    assert not folder.exists()


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['train.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'pytorch_lightning', 'transformers', 'datasets', 'wandb'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "schedule" in run.stdout
