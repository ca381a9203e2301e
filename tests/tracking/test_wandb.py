"""The W&B logger, with real offline runs in an empty home."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from application import SMALL, results_of, run_in
from PIL import Image
from pytorch_lightning import loggers
from pytorch_lightning.utilities import rank_zero_only
from tracked_world import (
    Segment,
    description,
    home_without_key,
    listening_server,
    outcome,
    segments,
)

from multiprune.tasks.classification import Classification
from multiprune.tracking.tracker import conclude, tracked
from multiprune.tracking.wandb import RUN_ID, WandbTracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with home_without_key(tmp_path, monkeypatch):
        yield tmp_path


def tracker(folder: Path, **options: Any) -> WandbTracker:
    return WandbTracker(folder=str(folder), project="tests", **options)


def outside(world: Path, folder: Path) -> list[Path]:
    return [path for path in world.rglob("*") if path.is_file() and folder not in path.parents]


def stop_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    loss, calls = Classification.loss, iter(range(100))

    def failing(self: Classification, logits: Tensor, labels: Tensor) -> Tensor:
        if next(calls) == call:
            raise RuntimeError("the machine goes down")
        return loss(self, logits, labels)

    monkeypatch.setattr(Classification, "loss", failing)


@pytest.fixture(scope="module")
def requeued(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run that was stopped and resumed, beside a server that nobody asks."""
    world = tmp_path_factory.mktemp("world")
    overrides = [*SMALL, "pruner=movement", "budget.fraction=0.3", "checkpoint.every_n_steps=3"]
    overrides += ["logger=wandb", "logger.wandb.predictions=2", "logger.wandb.model=true"]
    with pytest.MonkeyPatch.context() as monkeypatch, home_without_key(world, monkeypatch):
        # The data of an earlier run are cached elsewhere.
        monkeypatch.setenv("XDG_CACHE_HOME", str(world / "run" / "cache"))
        with listening_server(monkeypatch) as server:
            with monkeypatch.context() as failing:
                stop_at(failing, 4)
                with pytest.raises(RuntimeError, match="goes down"):
                    run_in(world / "run", *overrides)
            run_in(world / "run", *overrides)
            with pytest.raises(BlockingIOError):
                server.accept()
        assert not outside(world, world / "run")
        yield world / "run"


@pytest.fixture(scope="module")
def told(requeued: Path) -> list[Segment]:
    return segments(requeued)


def test_a_resumed_run_is_one_run_in_two_segments(requeued: Path, told: list[Segment]) -> None:
    known = (requeued / RUN_ID).read_text().strip()
    assert [one.shown["run_id"] for one in told] == [known, known]
    assert [one.shown["exit_code"] for one in told] == [1, 0]


def test_configuration_and_tags_arrive(requeued: Path, told: list[Segment]) -> None:
    shown, results = told[1].shown, results_of(requeued)
    assert set(shown["tags"]) == {"demo", "movement", "from_scratch"}
    assert shown["name"] == "run"
    assert shown["config"]["choices"]["pruner"] == "movement"
    for key in ("pruner", "budget", "optimizer", "encoder", "trainer", "task", "seed"):
        assert shown["config"][key] == results["config"][key]


def test_summary_is_that_of_the_results(requeued: Path, told: list[Segment]) -> None:
    summary, results = told[1].shown["summary"], results_of(requeued)
    assert summary["score"] == results["score"]
    assert summary["kept"] == results["budget"]["kept"]
    assert summary["density"] == results["budget"]["kept"] / results["budget"]["dense"]
    for split, name in (("validation", "val"), ("test", "test")):
        for task, metrics in results[split].items():
            for metric, value in metrics.items():
                assert summary[f"{name}/{task}/{metric}"] == pytest.approx(value)


def test_histories_of_score_and_density_arrive(told: list[Segment]) -> None:
    items = [one["item"] for segment in told for one in segment.of("history")]
    densities = [(one["trainer/global_step"], one["density"]) for one in items if "density" in one]
    assert {step for step, _ in densities} >= {1, 5, 7}
    assert densities[0][1] == 1.0
    assert densities[-1][1] == pytest.approx(0.3, abs=1e-3)
    # Once in training, and once of the weights that are handed over.
    assert sum("val/score" in one for one in items) == 2
    assert any("train/roles/loss" in one for one in items)


def test_heat_map_predictions_and_model_are_kept(requeued: Path, told: list[Segment]) -> None:
    media = told[1].file.parent / "files" / "media"
    (file,) = media.glob("images/density_by_layer*.png")
    with Image.open(file) as image:
        assert image.width > 100
    tables = {file.name.split("_")[0]: file for file in media.glob("table/predictions/*.json")}
    assert set(tables) == {"agreement", "entailment", "quantity", "roles"}
    table = json.loads(tables["entailment"].read_text())
    assert table["columns"] == ["sentence1", "sentence2", "label", "prediction", "error"]
    assert len(table["data"]) == 2
    assert {row[2] for row in table["data"]} <= {"entailment", "not_entailment"}
    (model,) = [one for one in told[1].of("artifact") if one["type"] == "model"]
    files = {one["path"] for one in model["manifest"]["contents"]}
    assert files == {file.name for file in (requeued / "model").iterdir()}


def test_a_job_of_a_sweep_is_in_its_group(world: Path) -> None:
    logger = tracker(world / "run", tags=["tuesday"])
    with tracked([logger], description(name="n" * 200)):
        logger.log_metrics({"loss": 0.5}, step=0)
    (run,) = segments(world / "run")[0].of("run")
    assert run["run_group"] == "sparsity"
    assert run["display_name"] == "n" * 128
    assert run["tags"] == ["glue", "movement", "minilm", "tuesday"]


def test_the_command_line_arrives_without_secrets(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "uri=http://me:hunter2@host", "seed=12345"])
    with tracked([logger := tracker(world / "run")], description()):
        logger.log_metrics({"loss": 0.5}, step=0)
    assert segments(world / "run")
    (stored,) = (world / "run").rglob("*.wandb")
    assert b"seed=12345" in stored.read_bytes()
    assert b"hunter2" not in stored.read_bytes()


def test_the_next_job_of_a_process_has_a_run_and_files_of_its_own(world: Path) -> None:
    for name in ("first", "second"):
        (world / name).mkdir()
        with tracked([one := tracker(world / name, model=True)], description(name=name)):
            conclude([one], outcome(world / "run"))
        assert len(list((world / name / "wandb").glob("offline-run-*"))) == 1
        assert os.environ["WANDB_DATA_DIR"] == str(world / name / "wandb")
    assert (world / "first" / RUN_ID).read_text() != (world / "second" / RUN_ID).read_text()


def test_an_agent_of_wandb_gives_the_id(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abcd1234")
    assert tracker(world / "run").version == "abcd1234"
    (world / "run" / RUN_ID).write_text("mine\n")
    assert tracker(world / "run").version == "mine"


def test_a_run_that_never_begins_leaves_nothing(world: Path) -> None:
    tracker(world / "run")
    assert not any((world / "run").iterdir())


def test_other_ranks_do_nothing(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = tracker(world / "run", predictions=1, model=True)
    with tracked([logger], description()):
        conclude([logger], outcome(world / "run"))
    assert not any((world / "run").iterdir())


@pytest.fixture
def noting(monkeypatch: pytest.MonkeyPatch) -> type[WandbTracker]:
    """The tracker, on another logger than that of Lightning."""

    def init(self: Any, **settings: Any) -> None:
        self.settings = settings

    monkeypatch.setattr(loggers.WandbLogger, "__init__", init)
    return WandbTracker


@pytest.mark.parametrize("offline", [None, False])
def test_with_a_key_a_run_is_online(
    offline: bool | None, world: Path, noting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    logger = noting(folder=str(world / "run"), project="tests", offline=offline)
    assert logger.settings["offline"] is False
    assert logger.settings["mode"] is None
    assert logger.settings["save_dir"] == str(world / "run")


def test_without_a_key_a_run_is_offline(world: Path, noting: Any) -> None:
    assert noting(folder=str(world / "run"), project="tests").settings["mode"] == "offline"


def test_folders_that_the_user_has_chosen_stay(
    world: Path, noting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_CACHE_DIR", str(world / "elsewhere"))
    noting(folder=str(world / "run"), project="tests", offline=True)
    assert os.environ["WANDB_CACHE_DIR"] == str(world / "elsewhere")
    assert os.environ["WANDB_DATA_DIR"] == str(world / "run" / "wandb")
