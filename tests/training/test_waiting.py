"""Steps wait for nothing that the device has yet to compute, whatever prunes; losses are read late.

Counted on the CPU, where ``waits`` notes each read of what a device would hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import LearningRateMonitor
from tiny_run import tiny_run
from typing_extensions import override
from waits import Waits

import multiprune.training.status
from multiprune.runs.status import StatusFile
from multiprune.tracking.csv import MetricsCsv
from multiprune.training.curves import Curves
from multiprune.training.status import ReportStatus
from multiprune.training.timing import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tiny_run import Run

PRUNERS = {
    file.stem: file
    for file in sorted((Path(__file__).parents[2] / "conf" / "pruner").glob("*.yaml"))
}
RANK_EVERY, LOG_EVERY, STOP_STEP, EPOCH = 4, 5, 9, 6
#: What steps that neither log, evaluate, save nor rank still wait for, by pruner and step.
STILL_WAIT: Mapping[tuple[str, int], str] = {
    ("dynamic_sparsification", 1): "The order that the run begins or continues with is read once.",
    ("low_rank", 1): "Whether gates learn already is read once, as a run may begin anywhere.",
    ("structured_l0", 1): "Likewise.",
}


class CountWaits(pl.Callback):
    """Counts what each step waits for, from the start of a batch to that of the next."""

    def __init__(self, waits: Waits) -> None:
        self.waits = waits
        self._starts: list[int] = []

    @property
    def by_step(self) -> dict[int, list[str]]:
        """What was waited for in each step, from 1; what follows the last start is left out."""
        bounds = zip(self._starts, self._starts[1:], strict=False)
        return {step: self.waits.found[a:b] for step, (a, b) in enumerate(bounds, start=1)}

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._starts.append(len(self.waits.found))
        self.waits.claim([*pl_module.parameters(), *pl_module.buffers()])
        self.waits.claim([*batch.inputs.values(), batch.labels])


def counted(run: Run, folder: Path) -> dict[int, list[str]]:
    """Train with all that a run has beside its model, and return what each step waited for."""
    waits = Waits()
    counts = CountWaits(waits)
    status = StatusFile(folder)
    status.begin()
    run.trainer.loggers = [MetricsCsv(str(folder))]
    run.trainer.callbacks[:0] = [counts]  # type: ignore[attr-defined]
    run.trainer.callbacks += [  # type: ignore[attr-defined]
        *(Stopwatch(), LearningRateMonitor(logging_interval="step"), Curves()),
        ReportStatus(status),
    ]
    run.pruning.every_n_steps = RANK_EVERY
    with waits:
        run.trainer.fit(run.module, run.data)
    return counts.by_step


@pytest.mark.parametrize("pruner", PRUNERS)
def test_steps_wait_for_nothing_unless_a_table_says_why(
    pruner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The status is written in every step.
    monkeypatch.setattr(multiprune.training.status, "_SECONDS_BETWEEN_WRITES", 0.0)
    run = tiny_run(tmp_path, PRUNERS[pruner], every_n_steps=1000, log_every_n_steps=LOG_EVERY)
    found = counted(run, tmp_path)
    ranking = {step for step in found if step % RANK_EVERY == 0 and step < STOP_STEP} | {STOP_STEP}
    logging = {step for step in found if step % LOG_EVERY == 0}
    plain = found.keys() - ranking - logging - {EPOCH}
    assert len(plain) >= 5
    waiting = {(pruner, step) for step in plain if found[step]}
    assert waiting == {key for key in STILL_WAIT if key[0] == pruner}, [
        found[step] for _, step in waiting
    ]
    # What must be read is noticed here, too.
    assert all(found[step] for step in logging)
    assert pruner == "none" or all(found[step] for step in ranking)


def test_table_names_pruners_that_there_are() -> None:
    assert {pruner for pruner, _ in STILL_WAIT} <= PRUNERS.keys()
    assert len(PRUNERS) >= 5
