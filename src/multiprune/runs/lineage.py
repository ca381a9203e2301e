"""The history of a run's encoder: the runs whose encoder it began with."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.runs.command import command_of
from multiprune.runs.folder import MODEL, RESULTS, has_results
from multiprune.runs.record import EarlierRun, RunRecord, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What happens to weights in a run.
DENSE, PRUNED, KEPT = "dense", "pruned", "mask kept"


def lineage_of(path: str | None) -> list[EarlierRun]:
    """Return the runs that the encoder at ``path`` has gone through, the first of them first.

    None, for an encoder of the hub or from elsewhere.

    Raises:
        ValueError: if the record of such a run is damaged.
    """
    if path is None:
        return []
    folder = Path(path).expanduser()
    if not has_results(folder):
        folder = folder.parent if folder.name == MODEL else folder
    if not has_results(folder):
        return []
    try:
        record = RunRecord.read(folder)
    except ValueError as error:
        raise ValueError(
            f"{folder / RESULTS} must hold the results of a run, but {error}."
        ) from error
    carried = {stored.name: getattr(record, stored.name) for stored in fields(Stage)}
    run = EarlierRun(**carried, run=str(folder.resolve()), command=command_of(folder))
    return [*record.lineage, run]


def described(stages: Sequence[Stage], asked: int) -> tuple[str, ...]:
    """Say of each run what it has learned from, and whether weights went in it.

    The density is left out where as much was asked for as in the end, ``asked``.
    """
    words = []
    for before, stage in zip((None, *stages), stages, strict=False):
        what = _what(stage, before)
        budget = stage.budget
        density = f" to {budget.density:.3g}" if what == PRUNED and budget.asked != asked else ""
        words.append(f"{', '.join(stage.tasks)} {what}{density}")
    return tuple(words)


def _what(stage: Stage, before: Stage | None) -> str:
    if stage.budget.kept == stage.budget.dense:
        return DENSE
    return KEPT if before is not None and stage.mask_sha256 == before.mask_sha256 else PRUNED
