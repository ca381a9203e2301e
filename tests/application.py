"""Runs the application in this process, as ``train.py`` would with the same overrides."""

from __future__ import annotations

import json
import shutil
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from multiprune.config import register

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor

    from multiprune.tasks.task import Task

ROOT = Path(__file__).parents[1]

#: An encoder from scratch of one narrow layer.
NARROW = (
    "encoder=from_scratch",
    "encoder.layers=1",
    "encoder.hidden=16",
    "encoder.heads=2",
    "encoder.intermediate=32",
)

#: An epoch of small batches.
QUICK = (
    "trainer=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "rank_every_n_steps=2",
    "data.batch_size=16",
)

#: A few seconds of the embedded suite: one layer, few rows.
SMALL = (
    *QUICK,
    *NARROW,
    *(
        f"task.{task}.source.rows={{train: 48, validation: 16, test: 16}}"
        for task in ("agreement", "entailment", "quantity", "roles")
    ),
)


def composed(
    *overrides: str,
    config_name: str = "train",
    folder: Path | None = None,
    directory: str = "conf",
) -> DictConfig:
    """Compose a configuration; ``folder`` is the run's, noted where Hydra keeps it.

    A ``directory`` other than ``conf`` is one of sweeps, which extend what is in ``conf``.
    """
    register()
    if directory != "conf":
        overrides = (*overrides, f"hydra.searchpath=[file://{ROOT / 'conf'}]")
    with initialize_config_dir(str(ROOT / directory), version_base="1.3"):
        config = compose(config_name, overrides=list(overrides), return_hydra_config=True)
    with open_dict(config):
        config.hydra.runtime.output_dir = str(folder or "unused")
        config.hydra.mode = "RUN"
    HydraConfig.instance().set_config(config)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    OmegaConf.set_struct(config, True)
    return config


def save_untrained(folder: Path, *, density: float = 0.5, **shape: int) -> Path:
    """Write a model as a run would, of the embedded tasks, and of random weights and zeros."""
    from hydra.utils import instantiate

    from multiprune.export.checkpoint import save_model
    from multiprune.models.from_scratch import from_scratch
    from multiprune.models.multitask import MultitaskModel

    sizes: dict[str, Any] = {"layers": 1, "hidden": 16, "heads": 2, "intermediate": 32}
    encoder = from_scratch(**(sizes | shape))
    tasks = dict(instantiate(composed().task, _convert_="all"))
    model = MultitaskModel(encoder.model, tasks)
    generator = torch.Generator().manual_seed(0)
    for module in model.encoder.modules():
        if isinstance(module, torch.nn.Linear):
            kept = torch.rand(module.weight.shape, generator=generator) < density
            module.weight.data.mul_(kept)
    shutil.rmtree(folder / "model", ignore_errors=True)
    save_model(folder / "model", model, encoder.tokenizer, tasks)
    return folder


def run_in(folder: Path, *overrides: str) -> float:
    """Run the application in ``folder``."""
    from multiprune.start import run

    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    return run(composed(*overrides, folder=folder))


def run_interrupted(folder: Path, *overrides: str, kind: type[Task], at: int) -> None:
    """Run the application in ``folder``, until it computes the ``at``-th loss of a kind of task."""
    loss, calls = kind.loss, count(1)

    def failing(self: Task, logits: Tensor, labels: Tensor) -> Tensor:
        if next(calls) == at:
            raise RuntimeError("the machine goes down")
        return loss(self, logits, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "loss", failing)
        with pytest.raises(RuntimeError, match="goes down"):
            run_in(folder, *overrides)
    assert not (folder / "results.json").exists()


def refused(run: Path, *overrides: str) -> str:
    """Return the sentence with which the application refuses, having written nothing."""
    with pytest.raises(SystemExit) as error:
        run_in(run, *overrides)
    assert not run.exists()
    return str(error.value)


def results_of(run: Path) -> dict[str, Any]:
    """Return what the results file of a run holds."""
    content: dict[str, Any] = json.loads((run / "results.json").read_text())
    return content
