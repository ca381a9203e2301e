"""Find the folders of runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.runs.command import HYDRA
from multiprune.runs.folder import RESULTS
from multiprune.runs.status import STATUS

if TYPE_CHECKING:
    from collections.abc import Iterable


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """Return the folder of every run in ``paths`` and below them, each once, by path.

    Raises:
        FileNotFoundError: if a path does not exist, or there is no run in it.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        start = path.parent if path.name == RESULTS else path
        if not start.is_dir():
            raise FileNotFoundError(f"{path} is not a directory.")
        below = [folder for folder in _walk(start) if _is_run(folder)]
        if not below:
            raise FileNotFoundError(f"No runs found in {path}.")
        for folder in below:
            found.setdefault(folder.resolve(), folder)
    return sorted(found.values())


def _walk(start: Path) -> list[Path]:
    folders = []
    for name, children, _ in os.walk(start):
        folder = Path(name)
        folders.append(folder)
        # A run's own folders (model, checkpoints) hold no runs, but many files.
        children[:] = [] if _is_run(folder) else [one for one in children if one[0] != "."]
    return folders


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (RESULTS, HYDRA, STATUS))
