from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from multiprune.tracking import csv as csv_logger
from multiprune.tracking.csv import MetricsCsv

if TYPE_CHECKING:
    from pathlib import Path


def rows_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def filled(folder: Path, steps: int) -> MetricsCsv:
    logger = MetricsCsv(str(folder))
    for step in range(steps):
        logger.log_metrics({"loss": float(step)}, step)
    logger.finalize("success")
    return logger


def test_what_is_logged_at_one_step_is_one_row(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path))
    logger.log_metrics({"loss": 0.5}, 0)
    logger.log_metrics({"density": 1.0}, 0)
    logger.log_metrics({"loss": 0.25, "density": 0.5}, 1)
    logger.log_metrics({"loss": 0.125}, 1)
    logger.finalize("success")
    assert rows_in(tmp_path) == [
        {"step": "0", "loss": "0.5", "density": "1.0"},
        {"step": "1", "loss": "0.125", "density": "0.5"},
    ]


def test_the_header_grows_and_cells_that_were_not_logged_are_empty(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path))
    logger.log_metrics({"loss": 0.5}, 0)
    logger.finalize("success")
    logger.log_metrics({"val/score": 0.75}, 3)
    logger.finalize("success")
    assert rows_in(tmp_path) == [
        {"step": "0", "loss": "0.5", "val/score": ""},
        {"step": "3", "loss": "", "val/score": "0.75"},
    ]


def test_metrics_without_a_step_belong_to_the_first(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path))
    logger.log_metrics({"loss": 0.5})
    logger.finalize("success")
    assert rows_in(tmp_path) == [{"step": "0", "loss": "0.5"}]


def test_a_resumed_run_replaces_what_it_repeats(tmp_path: Path) -> None:
    filled(tmp_path, 6)
    resumed = MetricsCsv(str(tmp_path))
    for step in (3, 4):
        resumed.log_metrics({"loss": 10.0 + step, "density": 0.5}, step)
    resumed.finalize("success")
    assert [(row["step"], row["loss"], row["density"]) for row in rows_in(tmp_path)] == [
        ("0", "0.0", ""),
        ("1", "1.0", ""),
        ("2", "2.0", ""),
        ("3", "13.0", "0.5"),
        ("4", "14.0", "0.5"),
    ]


def test_a_run_resumed_after_the_last_row_loses_none(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    resumed = MetricsCsv(str(tmp_path))
    resumed.log_metrics({"loss": 2.0}, 2)
    resumed.finalize("success")
    assert [row["loss"] for row in rows_in(tmp_path)] == ["0.0", "1.0", "2.0"]


def test_empty_cells_stay_empty_in_a_resumed_run(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path))
    logger.log_metrics({"loss": 0.5}, 0)
    logger.log_metrics({"density": 1.0}, 1)
    logger.finalize("success")
    resumed = MetricsCsv(str(tmp_path))
    resumed.log_metrics({"loss": 0.25}, 2)
    resumed.finalize("success")
    assert [row["density"] for row in rows_in(tmp_path)] == ["", "1.0", ""]


def test_a_resumed_run_that_logs_nothing_leaves_the_file(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    before = (tmp_path / "metrics.csv").read_bytes()
    MetricsCsv(str(tmp_path)).finalize("success")
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_a_run_that_logs_nothing_writes_no_file(tmp_path: Path) -> None:
    MetricsCsv(str(tmp_path)).finalize("success")
    assert not list(tmp_path.iterdir())


def test_writing_leaves_nothing_but_the_file(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_write_that_fails_leaves_the_last_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = filled(tmp_path, 3)
    before = (tmp_path / "metrics.csv").read_bytes()

    def full(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(csv.DictWriter, "writerows", full)
    logger.log_metrics({"loss": 9.0}, 9)
    with pytest.raises(OSError, match=r"metrics\.csv cannot be written: the disk is full\."):
        logger.after_save_checkpoint(None)
    # Nothing hides why a run failed.
    logger.finalize("failed")
    assert (tmp_path / "metrics.csv").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_checkpoint_is_never_ahead_of_the_file(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path))
    logger.log_metrics({"loss": 0.5}, 0)
    logger.after_save_checkpoint(None)
    assert [row["loss"] for row in rows_in(tmp_path)] == ["0.5"]


def test_what_is_logged_of_a_saved_step_is_on_the_disk_at_once(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path))
    logger.log_metrics({"loss": 0.5}, 0)
    logger.after_save_checkpoint(None)
    # Lightning logs a step after its end, where it is saved; no resumed run repeats it.
    for step in (1, 2):
        logger.log_metrics({"loss": 0.25}, step)
        logger.save()
    assert [row["step"] for row in rows_in(tmp_path)] == ["0", "1"]


def test_a_run_resumed_with_the_validation_of_a_step_keeps_what_it_trained(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    resumed = MetricsCsv(str(tmp_path))
    resumed.log_metrics({"val/score": 0.5}, 2)
    resumed.finalize("success")
    assert rows_in(tmp_path)[-1] == {"step": "2", "loss": "2.0", "val/score": "0.5"}


@pytest.mark.parametrize(("pause", "written"), [(float("inf"), False), (-1.0, True)])
def test_rows_are_written_now_and_then(
    pause: float, written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_logger, "_SECONDS_BETWEEN_WRITES", pause)
    logger = MetricsCsv(str(tmp_path))
    logger.log_metrics({"loss": 0.5}, 0)
    logger.save()
    assert (tmp_path / "metrics.csv").exists() is written


@pytest.mark.parametrize(
    ("lines", "steps", "said"),
    [
        (["0,0.5", "1,0.25", ""], [0, 1], ""),
        (["0,0.5", "1,0.2"], [0], "1 rows cannot be read"),  # ends in the midst of a number
        (["0,0.5", "1,x", "1,0.25", ""], [0, 1], "1 rows cannot be read"),
        (["0,0.5", "1", "0,0.5", "2,0.25,7", "3,\0", ""], [0], "4 rows cannot be read"),
    ],
)
def test_rows_that_are_whole_are_kept(
    lines: list[str],
    steps: list[int],
    said: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "metrics.csv").write_text("\n".join(["step,loss", *lines]))
    logger = MetricsCsv(str(tmp_path))
    logger.go_on(9, {"loss": 0.125})
    logger.finalize("success")
    assert [int(row["step"]) for row in rows_in(tmp_path)] == [*steps, 9]
    assert said in caplog.text
    assert (tmp_path / "metrics.csv.damaged").exists() == bool(said)
