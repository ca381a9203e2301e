"""The W&B logger, with real offline runs in an empty home."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import wandb
from pytorch_lightning import loggers

from multiprune.training.loggers import wandb_logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home without a key, another working directory, and a folder for the run."""
    for name in ("home", "work", "run"):
        (tmp_path / name).mkdir()
    variables = ("API_KEY", "MODE", "DATA_DIR", "CACHE_DIR", "CONFIG_DIR", "DIR", "PROJECT")
    for variable in (*(f"WANDB_{one}" for one in variables), "NETRC"):
        monkeypatch.setenv(variable, "")  # so that what is set meanwhile is undone
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    wandb.teardown()  # it keeps the environment that it has seen first
    yield tmp_path
    wandb.teardown()


def log_one_value(logger: loggers.WandbLogger) -> None:
    logger.log_metrics({"loss": 0.5}, step=0)
    logger.experiment.finish()


def assert_one_offline_run(world: Path) -> None:
    folder = world / "run"
    assert len(list((folder / "wandb").glob("offline-run-*/run-*.wandb"))) == 1
    outside = [path for path in world.rglob("*") if path.is_file() and folder not in path.parents]
    assert not outside


def test_an_offline_run_writes_below_its_folder_only(world: Path) -> None:
    log_one_value(wandb_logger(folder=str(world / "run"), project="tests", offline=True))
    assert_one_offline_run(world)


def test_without_a_key_a_run_is_offline(world: Path) -> None:
    log_one_value(wandb_logger(folder=str(world / "run"), project="tests"))
    assert_one_offline_run(world)


class Noting:
    """Stands for Lightning's logger, and notes what it was made with."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings


@pytest.mark.parametrize("offline", [None, False])
def test_with_a_key_a_run_is_online(
    offline: bool | None, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(loggers, "WandbLogger", Noting)
    logger: Any = wandb_logger(folder=str(world / "run"), project="tests", offline=offline)
    assert logger.settings["offline"] is False
    assert logger.settings["project"] == "tests"
    assert logger.settings["name"] == "run"
    assert logger.settings["save_dir"] == str(world / "run")


def test_folders_that_the_user_has_chosen_stay(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_CACHE_DIR", str(world / "elsewhere"))
    monkeypatch.setattr(loggers, "WandbLogger", Noting)
    wandb_logger(folder=str(world / "run"), project="tests", offline=True)
    assert os.environ["WANDB_CACHE_DIR"] == str(world / "elsewhere")
    assert os.environ["WANDB_DATA_DIR"] == str(world / "run" / "wandb")
