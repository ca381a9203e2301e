"""What tests of trackers share: a home without a key, and what a run of one's own would tell."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import wandb
from PIL import Image

from multiprune.tracking.tracker import Description, Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

_VARIABLES = (
    "API_KEY", "MODE", "DATA_DIR", "CACHE_DIR", "ARTIFACT_DIR", "CONFIG_DIR", "DIR", "PROJECT",
    "RUN_ID", "BASE_URL",
)  # fmt: skip


@contextmanager
def home_without_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make an empty home, another working directory and a folder for the run in ``folder``."""
    for name in ("home", "work", "run"):
        (folder / name).mkdir()
    for variable in (*(f"WANDB_{one}" for one in _VARIABLES), "NETRC"):
        monkeypatch.setenv(variable, "")  # so that what is set meanwhile is undone
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.chdir(folder / "work")
    wandb.teardown()  # it keeps the environment that it has seen first
    yield folder
    wandb.teardown()


@contextmanager
def listening_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Take the place of W&B's server; whoever asks is in the socket's queue."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield server


@dataclass(frozen=True)
class Segment:
    """What an offline W&B run holds: its records, and what W&B sums them up to."""

    file: Path
    records: list[dict[str, Any]]
    shown: dict[str, Any]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return all records of one kind."""
        return [one[kind] for one in self.records if one["type"] == kind]


def segments(folder: Path) -> list[Segment]:
    """Read the offline W&B runs in a run's folder, the first begun first."""
    files = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))
    return [
        Segment(
            file,
            [json.loads(line) for line in _leet("--json", str(file)).splitlines()],
            json.loads(_leet("--summary", "--json", str(file))),
        )
        for file in files
    ]


def _leet(*arguments: str) -> str:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def description(**changed: Any) -> Description:
    known = {
        "name": "pruner=movement,seed=0",
        "group": "sparsity",
        "tags": {"task": "glue", "pruner": "movement", "encoder": "minilm"},
        "commit": "c0ffee",
        "config": {"seed": 0, "budget": {"fraction": 0.5}},
    }
    return Description(**{**known, **changed})


def outcome(model: Path) -> Outcome:
    table = Table(["sentence", "error"], [["a | b\nc", 1.0]])
    return Outcome(
        steps=12,
        summary={"score": 0.75, "kept": 614, "val/rte/accuracy": 0.5},
        figures={"density_by_layer": lambda: Image.new("RGB", (4, 3), (255, 0, 0))},
        predictions=lambda count: {"rte": Table(table.columns, table.rows[:count])},
        model=model,
    )
