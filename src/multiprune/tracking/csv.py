"""``metrics.csv``: metrics of a run by step, continued when the run is resumed."""

from __future__ import annotations

import csv
import logging
import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from multiprune.runs.atomic import atomic_file

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_WRITES = 10.0


class MetricsCsv(Logger):
    """Writes one row a logging step to ``<folder>/metrics.csv``; empty cells were not logged.

    Lightning's own CSV logger deletes an earlier file in its folder. Here, what a resumed run
    repeats replaces the cells of its first step, and all rows after that.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._rows: list[dict[str, Any]] = []
        self._has_read = False
        self._written_at = time.monotonic()

    @property
    @override
    def name(self) -> str:
        return "metrics"

    @property
    @override
    def version(self) -> str:
        return ""

    @override
    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass  # results.json holds the configuration

    @rank_zero_only
    def go_on(self, step: int, row: Mapping[str, float]) -> None:
        """Keep what was logged up to ``step``, of which ``row`` is known to have been."""
        kept, damage = _read(self.path)
        if damage:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            shutil.copyfile(self.path, aside)
            log.warning(
                "%s is repaired up to step %d: %s; %s is as it was.",
                self.path,
                step,
                damage,
                aside.name,
            )
        self._rows = [one for one in kept if int(one["step"]) <= step]
        self._has_read = True
        if row:
            self.log_metrics(row, step)

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        step = 0 if step is None else step
        if not self._has_read:
            # A run that continues with the validation of a step has trained it before.
            self.go_on(step, {})
        if not self._rows or int(self._rows[-1]["step"]) != step:
            self._rows.append({"step": step})
        self._rows[-1].update(metrics)

    @override
    @rank_zero_only
    def save(self) -> None:
        # Lightning asks after every row; rows that a crash loses are those a resumed run repeats.
        if time.monotonic() - self._written_at > _SECONDS_BETWEEN_WRITES:
            self._write()

    @override
    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self._write()
        # What is logged of the step that was saved comes after that, and is not repeated.
        self._written_at = -math.inf

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        try:
            self._write()
        except OSError as error:
            if status != "failed":
                raise
            # Why it failed matters more.
            log.warning("The last rows of the metrics were not written: %s", error)

    def _write(self) -> None:
        if not self._rows:
            return
        columns = list(dict.fromkeys(key for row in self._rows for key in row))
        with atomic_file(self.path) as beside, beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self._rows)
        self._written_at = time.monotonic()


def _read(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the rows of a file that are whole, and what there is beside them, in words."""
    if not path.is_file():
        return [], ""
    text = path.read_text(errors="replace")
    # What ends in the midst of a number looks whole.
    lines = text.splitlines()[: None if text.endswith("\n") else -1]
    try:
        header, *others = csv.reader(lines, strict=True)
    except (csv.Error, ValueError):
        return [], "no row can be read"
    rows: list[dict[str, Any]] = []
    for cells in others:
        row = {k: v for k, v in zip(header, cells, strict=False) if v != ""}
        step = int(rows[-1]["step"]) if rows else -1
        if len(cells) == len(header) and _is_whole(row, after=step):
            rows.append(row)
    left_out = text.count("\n") + (not text.endswith("\n")) - 1 - len(rows)
    return rows, f"{left_out} rows cannot be read" if left_out else ""


def _is_whole(row: Mapping[str, str], *, after: int) -> bool:
    try:
        for cell in row.values():
            float(cell)
        return int(row["step"]) > after
    except (ValueError, KeyError):
        return False
