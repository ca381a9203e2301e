"""TensorBoard logger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from multiprune.tracking.tracker import Tracker, require

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from PIL.Image import Image

    from multiprune.tracking.tracker import Description, Table


class TensorBoardTracker(TensorBoardLogger, Tracker):
    """Writes events to ``<folder>/tensorboard``; the tab HPARAMS compares finished runs.

    Args:
        folder: of the run.
        predictions: examples of each task in a table, those with the largest errors.
    """

    def __init__(self, *, folder: str, predictions: int = 0) -> None:
        require("tensorboard", extra="tensorboard")
        super().__init__(folder, name="tensorboard", version="", default_hp_metric=False)
        self.predictions = predictions
        self._config: dict[str, Any] = {}

    @override
    @rank_zero_only
    def begin(self, description: Description) -> None:
        self._config = dict(description.config)
        self.log_hyperparams(self._config)

    @override
    @rank_zero_only
    def summarize(self, summary: Mapping[str, float], step: int) -> None:
        # Names of their own: the metrics of hyperparameters are points of curves as well.
        metrics = {f"summary/{name}": value for name, value in summary.items()}
        self.log_hyperparams(self._config, metrics, step)

    @override
    @rank_zero_only
    def draw(self, name: str, image: Image, step: int) -> None:
        self.experiment.add_image(name, np.asarray(image), step, dataformats="HWC")

    @override
    @rank_zero_only
    def tabulate(self, name: str, table: Table, step: int) -> None:
        self.experiment.add_text(name, as_markdown(table), step)

    @override
    def keep_model(self, folder: Path) -> None:
        pass  # TensorBoard has no place for files, and no option asks for it

    @override
    @rank_zero_only
    def close(self, *, succeeded: bool) -> None:
        self.finalize("success" if succeeded else "failed")


def as_markdown(table: Table) -> str:
    """Write a table in Markdown, each row on a line."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
