"""A run whose metrics need probabilities, of which one is of torchmetrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from application import SMALL, results_of, run_in
from sklearn import metrics as sklearn_metrics

import multiprune
from multiprune.data.source import GeneratedSource
from multiprune.report.candidates import Candidate
from multiprune.report.resampled import DRAWS, ResampledScores
from multiprune.runs.frame import read_run
from multiprune.tasks.synthetic import agreement

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.report.compare import Numbers
    from multiprune.runs.frame import FinishedRun

METRICS = {
    "auroc": "multiprune.metrics.AUROC",
    "theirs": "torchmetrics.classification.BinaryAUROC",
    "log_loss": "multiprune.metrics.LogLoss",
    "precision": "multiprune.metrics.AveragePrecision",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run(folder, METRICS)
    return folder


def run(folder: Path, paths: dict[str, str]) -> None:
    metrics = [
        f"task.agreement.metrics.{name}={{_target_: {path}}}" for name, path in paths.items()
    ]
    few = [one for one in SMALL if one[:5] != "task." or "agreement" in one]
    run_in(folder, *few, "task=agreement", "~task.agreement.metrics.accuracy", *metrics)


def test_scores_are_those_of_the_probabilities(finished: Path) -> None:
    scores = results_of(finished)["validation"]["agreement"]
    rows = GeneratedSource(generator=agreement, rows={"validation": 16}).load(
        "validation", mirror=None
    )
    assert rows is not None
    labels = rows.table["label"][:]
    logits = multiprune.load(finished).logits("agreement", rows.table["sentence"][:])
    likely = logits.double().softmax(-1)
    auroc = sklearn_metrics.roc_auc_score(labels, likely[:, 1])
    assert scores == pytest.approx(
        {
            "auroc": auroc,
            "theirs": auroc,
            "log_loss": sklearn_metrics.log_loss(labels, likely),
            "precision": sklearn_metrics.average_precision_score(labels, likely[:, 1]),
        },
        abs=1e-5,
    )


def test_what_they_are_is_recorded_without_any_path(finished: Path) -> None:
    recorded = results_of(finished)["tasks"]
    assert {name: task["metrics"] for name, task in recorded.items()} == {
        "agreement": {
            "auroc": {"name": "auroc"},
            "theirs": {"name": "BinaryAUROC of torchmetrics"},
            "log_loss": {"name": "log_loss"},
            "precision": {"name": "average_precision"},
        }
    }


def drawn(row: FinishedRun) -> Numbers:
    draws = ResampledScores([Candidate(1, {"agreement": [row]})])
    scores = draws(str(row.path), "agreement", "test")[0]
    assert scores.shape == (DRAWS,)
    assert scores.std() > 0.01
    return scores


def test_resampled_scores_of_torchmetrics_are_those_of_our_own(
    finished: Path, tmp_path: Path
) -> None:
    ours = drawn(read_run(finished))
    run(tmp_path / "theirs", {"theirs": METRICS["theirs"]})
    theirs = drawn(read_run(tmp_path / "theirs"))
    # Of the few resamples without one of the two classes it has another opinion.
    assert np.mean(np.abs(theirs - ours) < 1e-6) > 0.99
