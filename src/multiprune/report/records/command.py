"""The command that repeats a run, from what Hydra has noted in the run's folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml

#: The folder, within that of a run, where Hydra notes what it composed.
HYDRA = ".hydra"

# Several times as fast, where PyYAML was built with it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def command_of(folder: Path) -> str | None:
    """Return the command that repeats the run in ``folder``, also if it was one job of a sweep.

    None where Hydra has left no trace, or none that can be read.
    """
    try:
        words = ["python", "train.py", *_primary_config(folder / HYDRA / "hydra.yaml")]
        return shlex.join([*words, *overrides_of(folder)])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return None


def overrides_of(folder: Path) -> list[str]:
    """Return the overrides of the run in ``folder``.

    Raises:
        OSError, ValueError, TypeError, yaml.YAMLError: if Hydra has left none that can be read.
    """
    content = yaml.load((folder / HYDRA / "overrides.yaml").read_text(), _Loader) or []
    return [str(one) for one in content]


def _primary_config(file: Path) -> list[str]:
    """Return the options that name the configuration of a sweep, and ask for a single run."""
    if not file.exists():
        return []
    hydra = yaml.load(file.read_text(), _Loader)["hydra"]
    name, runtime = hydra["job"]["config_name"], hydra["runtime"]
    if name == "train":
        return []
    folders = [
        Path(source["path"])
        for source in runtime["config_sources"]
        if source["provider"] == "command-line"
    ]
    start = Path(runtime["cwd"])
    near = [one.relative_to(start) if one.is_relative_to(start) else one for one in folders]
    return [*(word for one in near for word in ("-cd", str(one))), "-cn", name, "hydra.mode=RUN"]
