"""Runs the application in this process, as ``train.py`` would with the same overrides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from multiprune.config import register

if TYPE_CHECKING:
    from omegaconf import DictConfig

ROOT = Path(__file__).parents[1]

#: A few seconds of the embedded suite: one layer, few rows.
SMALL = (
    "trainer=cpu",
    "+trainer.enable_progress_bar=false",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "rank_every_n_steps=2",
    "encoder.layers=1",
    "encoder.hidden=16",
    "encoder.heads=2",
    "encoder.intermediate=32",
    "data.batch_size=16",
    *(
        f"task.{task}.source.rows={{train: 48, validation: 16, test: 16}}"
        for task in ("agreement", "entailment", "quantity", "roles")
    ),
)


def composed(*overrides: str, config_name: str = "train", folder: Path | None = None) -> DictConfig:
    """Compose a configuration; ``folder`` is the run's, noted where Hydra keeps it."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose(config_name, overrides=list(overrides), return_hydra_config=True)
    with open_dict(config):
        config.hydra.runtime.output_dir = str(folder or "unused")
        config.hydra.mode = "RUN"
    HydraConfig.instance().set_config(config)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    OmegaConf.set_struct(config, True)
    return config


def run_in(folder: Path, *overrides: str) -> float:
    """Run the application in ``folder``."""
    from multiprune.run import run

    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    return run(composed(*overrides, folder=folder))
