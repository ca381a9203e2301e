"""What can be known of ``hydra/launcher=slurm`` where there is no Slurm."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from toy_jobs import APPLICATION, pretend

from hydra_plugins.multiprune_launchers.slurm import SlurmLauncher, SlurmLauncherConf
from multiprune.launching.slurm_queue import Queued, parse, queue


def toy(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(APPLICATION), "-m", f"hydra.sweep.dir={folder}", "value=1,2"]
    return subprocess.run(
        [*command, "hydra/launcher=slurm"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_without_submitit_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "submitit.py").write_text("raise ImportError('No module named submitit')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = toy(tmp_path / "sweep", {"PYTHONPATH": path})
    assert done.returncode == 1
    assert done.stderr == (
        "error: hydra/launcher=slurm needs submitit, which is not installed: "
        "pip install 'multiprune[slurm]'.\n"
    )


@pytest.mark.slow
def test_without_slurm_nothing_is_begun(tmp_path: Path) -> None:
    done = toy(tmp_path / "sweep", {"PATH": str(Path(sys.executable).parent)})
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: {platform.node()} has no `squeue`, a command of Slurm's."
    )
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "sweep").glob("*.begun"))


def test_jobs_are_known_by_what_was_noted_with_them() -> None:
    listing = (
        "7_3|RUNNING|/runs/a sweep|with bars/.slurm/0\n"
        "7_10|PENDING|/runs/a sweep|with bars/.slurm/0\n"
        "9|COMPLETING|(null)\n"
    )
    folder = Path("/runs/a sweep|with bars/.slurm/0")
    jobs = parse(listing)
    assert jobs == {
        "7_3": Queued("7_3", runs=True, submission=folder),
        "7_10": Queued("7_10", runs=False, submission=folder),
        "9": Queued("9", runs=True, submission=Path("(null)")),
    }
    assert [one.position for one in jobs.values()] == [3, 10, 0]


def test_slurm_that_does_not_answer_is_an_error_of_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    pretend(tmp_path / "bin", "squeue", f"echo '{says}' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    with pytest.raises(OSError, match="`squeue` failed: slurm_load_jobs error"):
        queue()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"resubmit": -1}, "`hydra.launcher.resubmit` must be a whole number of at least 0"),
        ({"nodes": 0}, "`hydra.launcher.nodes` must be a whole number of at least 1, but is 0"),
        ({"poll": float("nan")}, "`hydra.launcher.poll` must be above 0, but is nan"),
        ({"cpus_per_task": 0}, "`hydra.launcher.cpus_per_task` must be a whole number of at least"),
    ],
)
def test_numbers_of_the_launcher_are_checked(setting: dict[str, float], said: str) -> None:
    known = {key: one for key, one in vars(SlurmLauncherConf()).items() if key != "_target_"}
    with pytest.raises(ValueError, match=re.escape(said)):
        SlurmLauncher(**known | setting)._check()
