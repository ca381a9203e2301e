"""The TensorBoard logger, read back by TensorBoard itself."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tracked_world import description, outcome

from multiprune.tracking.tensorboard import TensorBoardTracker, as_markdown
from multiprune.tracking.tracker import Table, conclude, tracked

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def events(tmp_path: Path) -> EventAccumulator:
    logger = TensorBoardTracker(folder=str(tmp_path), predictions=1)
    with tracked([logger], description()):
        logger.log_metrics({"density": 0.5}, step=3)
        conclude([logger], outcome(tmp_path / "model"))
    assert [one.name for one in tmp_path.iterdir()] == ["tensorboard"]
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    return accumulator


def test_curves_and_summary_do_not_mix(events: EventAccumulator) -> None:
    scalars = {
        tag: [(one.step, one.value) for one in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    assert scalars == {
        "density": [(3, 0.5)],
        "summary/score": [(12, 0.75)],
        "summary/kept": [(12, 614)],
        "summary/val/rte/accuracy": [(12, 0.5)],
    }


def test_hyperparameters_stand_beside_the_summary(events: EventAccumulator) -> None:
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    started = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert started["seed"].number_value == 0
    assert started["budget/fraction"].number_value == 0.5
    content = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    metrics = plugin_data_pb2.HParamsPluginData.FromString(content).experiment.metric_infos
    assert {one.name.tag for one in metrics} == {
        "summary/score",
        "summary/kept",
        "summary/val/rte/accuracy",
    }


def test_figures_and_predictions_are_shown(events: EventAccumulator) -> None:
    (drawn,) = events.Images("density_by_layer")
    with Image.open(io.BytesIO(drawn.encoded_image_string)) as image:
        assert (image.size, image.getpixel((0, 0))) == ((4, 3), (255, 0, 0))
    (text,) = events.Tensors("predictions/rte/text_summary")
    assert b"| a \\| b c | 1.0 |" in text.tensor_proto.string_val[0]


def test_tables_are_markdown() -> None:
    table = Table(["text", "error"], [["a|b", 0.5]])
    assert as_markdown(table) == "| text | error |\n| --- | --- |\n| a\\|b | 0.5 |"


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = TensorBoardTracker(folder=str(tmp_path), predictions=1)
    with tracked([logger], description()):
        conclude([logger], outcome(tmp_path / "model"))
    assert not any(tmp_path.iterdir())
