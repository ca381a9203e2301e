"""``results.json``: what came out of one run, written once and read by everything else."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from multiprune.identity import difference
from multiprune.whole_file import whole_file

if TYPE_CHECKING:
    from pathlib import Path

Scores = Mapping[str, Mapping[str, float]]

_PACKAGES = (
    "multiprune",
    "torch",
    "transformers",
    "datasets",
    "pytorch-lightning",
    "hydra-core",
    "torchmetrics",
)


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of one run; what ``results.json`` holds.

    Attributes:
        score: mean over the tasks of the first metric of each, on validation data.
        validation: metrics by task.
        test: metrics by task, of tasks whose test data have labels, and of retrieval.
        budget: what is counted (``of``), ``dense``, ``asked`` and ``kept`` parameters.
        ledger: one row a part of the model.
        density: kept / total by path of each pruned tensor.
        mask_sha256: of all masks, for comparing runs.
        examples: training examples by task, after caps.
        labels: of each task that has some, also where the configuration leaves them to the data.
        truncated: texts cut to the encoder's length, by task.
        steps: optimizer steps.
        config: the composed configuration.
        metrics: of each task by name, what each is: its name here, and its settings.
        lineage: the runs that the encoder has gone through before, as ``lineage_of`` has them.
    """

    score: float
    validation: Scores
    test: Scores
    budget: Mapping[str, Any]
    ledger: list[dict[str, int | str | bool]]
    density: Mapping[str, float]
    mask_sha256: str
    examples: Mapping[str, int]
    truncated: Mapping[str, int]
    steps: int
    wall_seconds: float
    seconds_per_step: float
    seed: int
    config: Mapping[str, Any]
    lineage: list[dict[str, Any]] = field(default_factory=list)
    labels: Mapping[str, list[Any]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``results.json`` into ``folder``, with versions and the kind of machine."""
        content = asdict(self) | {"versions": _versions(), "machine": _machine()}
        with whole_file(folder / "results.json") as beside:
            beside.write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Read what :meth:`write` has written."""
        content = _read(folder / "results.json")
        # Earlier versions wrote less.
        return cls(**{one.name: content[one.name] for one in fields(cls) if one.name in content})


def is_finished(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a folder holds the results of the run that this configuration describes."""
    file = folder / "results.json"
    return file.is_file() and difference(_read(file)["config"], config) is None


def check_unfinished(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise a ValueError if a folder holds results, which another run would overwrite."""
    file = folder / "results.json"
    if not file.is_file():
        return
    differs = ""
    if found := difference(_read(file)["config"], config):
        key, before, now = found
        differs = f" in which {key} was {before!r}, and is {now!r} now"
    raise ValueError(
        f"Output folder {folder} already holds a finished run{differs}: choose another "
        "hydra.run.dir (or hydra.sweep.dir)."
    )


def read_score(folder: Path) -> float:
    """Return the score of a finished run."""
    return float(_read(folder / "results.json")["score"])


def scores_by_task(logged: Mapping[str, Any], split: str) -> dict[str, dict[str, float]]:
    """Pick ``<split>/<task>/<metric>`` out of what a Trainer has logged."""
    scores: dict[str, dict[str, float]] = {}
    for key, value in logged.items():
        parts = key.split("/")
        if len(parts) == 3 and parts[0] == split:
            scores.setdefault(parts[1], {})[parts[2]] = float(value)
    return scores


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def _machine() -> dict[str, Any]:
    import os

    import torch

    return {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
