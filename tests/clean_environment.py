"""An environment with all that is installed here but multiprune."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from pathlib import Path


def run_without_multiprune(script: Path, world: Path, *arguments: str) -> str:
    """Run a script that is given ``world`` and ``arguments``; return what it printed.

    Nothing of this process reaches the other one, the caches of its libraries neither.
    """
    python = _clean_environment(world / "environment")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))
    } | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(world / "cache")}
    run = subprocess.run(
        [str(python), "-I", str(script), str(world), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
        cwd=world,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def _clean_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=False)
    names = {"base": str(folder), "platbase": str(folder)}
    target = Path(sysconfig.get_path("purelib", "venv", names))
    for installed in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(installed).iterdir():
            if "multiprune" not in entry.name and not (target / entry.name).exists():
                (target / entry.name).symlink_to(entry)
    return Path(sysconfig.get_path("scripts", "venv", names)) / "python"
