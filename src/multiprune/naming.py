"""Run name, group and tags for experiment trackers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from multiprune.job_name import job_name
from multiprune.tracking.tracker import Description

if TYPE_CHECKING:
    from collections.abc import Mapping


def describe(config: Mapping[str, Any], folder: Path) -> Description:
    """Describe the run that Hydra has composed ``config`` for.

    A job of a sweep is named after its overrides, any other run after its folder. The options
    that were chosen (``pruner: movement``) join the configuration as ``choices``, the commit of the
    code as ``commit``.
    """
    hydra = HydraConfig.get()
    chosen = {
        str(group): option
        for group, option in hydra.runtime.choices.items()
        if isinstance(option, str) and not str(group).startswith("hydra/")
    }
    # Of a list of tasks Hydra notes no choice.
    chosen = {"task": "+".join(config["task"])} | chosen
    commit, is_job = _commit(), hydra.mode == RunMode.MULTIRUN
    fixed = hydra.job.config.override_dirname.exclude_keys
    return Description(
        name=(job_name(hydra.overrides.task, fixed) if is_job else "") or folder.name,
        group=Path(hydra.sweep.dir).name if is_job else None,
        tags={kind: chosen[kind] for kind in ("task", "pruner", "encoder")},
        commit=commit,
        config={**config, "choices": chosen, "commit": commit},
    )


def _commit() -> str | None:
    """Return the commit of the working folder, which holds ``train.py`` and the configuration."""
    try:
        told = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()
