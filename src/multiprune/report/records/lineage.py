"""What a run began with: the run whose encoder it took, and those before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from multiprune.report.records.command import command_of

#: What is carried along of each earlier run.
_CARRIED = ("score", "validation", "budget", "ledger", "mask_sha256", "steps", "seed", "config")


def lineage_of(path: str | None) -> list[dict[str, Any]]:
    """Return the runs that the encoder at ``path`` has gone through, the first of them first.

    Each with its folder, the command that repeats it, its configuration, and what came of it. None,
    for an encoder of the hub or from elsewhere.

    Raises:
        ValueError: if the results of such a run are damaged.
    """
    if path is None:
        return []
    folder = Path(path).expanduser()
    if not (folder / "results.json").is_file():
        folder = folder.parent if folder.name == "model" else folder
    file = folder / "results.json"
    if not file.is_file():
        return []
    try:
        results: dict[str, Any] = json.loads(file.read_text())
        carried = {key: results[key] for key in _CARRIED}
    except KeyError as error:
        raise ValueError(f"{file} must hold the results of a run, but has no {error}.") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} must hold the results of a run, but: {error}.") from error
    run = {"run": str(folder.resolve()), "command": command_of(folder), **carried}
    return [*results.get("lineage", []), run]
