"""How runs and the jobs of sweeps are called."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from application import composed
from hydra.core.hydra_config import HydraConfig
from omegaconf import flag_override

from multiprune.config import plain
from multiprune.naming import describe

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from multiprune.tracking.tracker import Description


def described(*overrides: str, folder: Path, sweep: Path | None = None) -> Description:
    config = composed(*overrides, folder=folder)
    if sweep is not None:
        hydra: Any = HydraConfig.get()
        with flag_override(hydra, ["readonly", "struct"], False):
            hydra.mode, hydra.sweep.dir = "MULTIRUN", str(sweep)
            hydra.overrides.task = [*overrides]
    return describe(plain(config), folder)


def test_a_run_is_called_after_its_folder(tmp_path: Path) -> None:
    one = described("pruner=movement", "encoder=minilm", folder=tmp_path / "12-30-00")
    assert (one.name, one.group) == ("12-30-00", None)
    assert one.tags == {"task": "demo", "pruner": "movement", "encoder": "minilm"}
    assert one.config["choices"]["schedule"] == "cubic"
    assert not [group for group in one.config["choices"] if group.startswith("hydra")]
    assert one.config["seed"] == 0


def test_a_job_is_called_after_its_overrides_within_its_sweep(tmp_path: Path) -> None:
    sweep = tmp_path / "sparsity"
    one = described("pruner=movement", "seed=1", folder=sweep / "3", sweep=sweep)
    assert (one.name, one.group) == ("pruner-movement_seed-1", "sparsity")
    assert described(folder=sweep / "4", sweep=sweep).name == "4"


def test_a_list_of_tasks_is_tagged_by_its_names(tmp_path: Path) -> None:
    assert described("task=[rte,mrpc]", folder=tmp_path).tags["task"] == "rte+mrpc"
    suite = described("experiment=glue_core_minilm", folder=tmp_path)
    assert suite.tags["task"] == "glue_core"


def test_code_is_that_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert described(folder=tmp_path).commit is None
    identity = ["-c", "user.name=me", "-c", "user.email=me@localhost"]
    for arguments in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", *arguments], check=True)
    one = described(folder=tmp_path)
    head = (tmp_path / ".git" / "HEAD").read_text().split()[-1]
    assert one.commit == (tmp_path / ".git" / head).read_text().strip()
    assert one.config["commit"] == one.commit
