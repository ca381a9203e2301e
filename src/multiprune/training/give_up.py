"""Early stopping of sweep jobs that finished runs dominate.

Optuna's pruners would need one objective. Here a run is held against those that keep no more
parameters, so that a small model with a low score is not hopeless, but a larger one with the same
score is.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.runs.folder import has_results
from multiprune.runs.record import RunRecord
from multiprune.runs.status import GaveUpError

if TYPE_CHECKING:
    from collections.abc import Sequence

SCORE = "val/score"


@dataclass(frozen=True)
class Rival:
    """A finished run: what it kept, and its scores by the share of its steps that was done."""

    kept: int
    scores: Sequence[tuple[float, float]]

    def score_at(self, share: float) -> float | None:
        """Return its last score until then; None if it had none."""
        known = [score for done, score in self.scores if done <= share]
        return known[-1] if known else None


def better_rivals(
    rivals: Sequence[Rival], *, kept: int, share: float, score: float, margin: float
) -> int:
    """Count rivals that keep no more, and whose score was above ``score`` by more than ``margin``.

    ``share`` of the steps are done.
    """
    found = [one.score_at(share) for one in rivals if one.kept <= kept]
    return sum(other is not None and other > score + margin for other in found)


class GiveUp(pl.Callback):
    """Ends a run by :class:`GaveUpError` where enough rivals in its sweep were better.

    Args:
        folder: of the run, beside those of the others.
        rivals: how many must be better.
        margin: by how much, of the mean score over tasks.
        after: the share of all steps before which no run gives up.
    """

    def __init__(self, *, folder: str, rivals: int, margin: float, after: float) -> None:
        check_number("rivals", rivals, at_least=1, whole=True)
        check_number("margin", margin, at_least=0)
        check_number("after", after, at_least=0, below=1)
        self.folder = Path(folder)
        self.rivals, self.margin, self.after = rivals, margin, after
        #: The parameters that the run will keep, of what its budget counts.
        self.kept: int | None = None

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or self.kept is None:
            return
        total = trainer.estimated_stepping_batches
        share = trainer.global_step / total
        if not self.after <= share < 1:
            return
        # One process reads, so that all of them end together.
        better = trainer.strategy.broadcast(
            better_rivals(
                read_rivals(self.folder),
                kept=self.kept,
                share=share,
                score=float(trainer.callback_metrics[SCORE]),
                margin=self.margin,
            )
            if trainer.is_global_zero
            else 0
        )
        if better >= self.rivals:
            raise GaveUpError(
                f"Stopped early: {better} finished runs of this size or smaller score more "
                f"than {self.margin} higher."
            )


def read_rivals(folder: Path) -> list[Rival]:
    """Return the finished runs beside ``folder``; those that cannot be read are no rivals."""
    rivals = []
    for run in sorted(filter(has_results, folder.parent.iterdir())):
        try:
            record = RunRecord.read(run)
            with (run / "metrics.csv").open(newline="") as file:
                scores = [
                    (int(row["step"]) / record.steps, float(row[SCORE]))
                    for row in csv.DictReader(file)
                    if row.get(SCORE)
                ]
            rivals.append(Rival(record.budget.kept, scores))
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            continue
    return [one for one in rivals if all(math.isfinite(score) for _, score in one.scores)]
