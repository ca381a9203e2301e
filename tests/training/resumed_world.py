"""Runs that are stopped, continue, and are held against one that was not stopped."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny_run import assert_same, tiny_run

from multiprune.tracking.csv import MetricsCsv

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from tiny_run import Run

PRUNER = Path(__file__).parents[2] / "conf" / "pruner" / "movement.yaml"


def logged_run(folder: Path, *callbacks: pl.Callback, **options: Any) -> Run:
    """Build a run that saves no checkpoint unless it is stopped."""
    options = {"every_n_steps": 1000, "log_every_n_steps": 1} | options
    run = tiny_run(folder, PRUNER, **options)
    run.trainer.loggers = [MetricsCsv(str(folder))]
    run.trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]
    return run


def fit(run: Run, checkpoint: Path | None = None) -> Run:
    run.trainer.fit(run.module, run.data, ckpt_path=checkpoint, weights_only=True)
    return run


def rows_in(folder: Path) -> list[dict[str, str]]:
    """Return the rows of ``metrics.csv``, in each of them all that is known by then.

    Lightning tells again what did not change: the last loss of the task that is not trained in a
    step, which a resumed run does not know, and the density.
    """
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [dict(one) for one in itertools.accumulate(rows, lambda known, row: known | row)]


def assert_same_end(resumed: Run, straight: Run) -> None:
    assert resumed.trainer.global_step == straight.trainer.global_step
    assert_same(resumed.state(), straight.state())
    assert resumed.best.best_model_score == straight.best.best_model_score
    if straight.trainer.is_global_zero:
        rows, expected = (
            rows_in(Path(run.trainer.default_root_dir)) for run in (resumed, straight)
        )
        assert rows == expected
