"""``metrics.csv`` of a run that was killed is that of one that was not, cell by cell."""

from __future__ import annotations

import csv
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from application import SMALL, run_in
from tiers import slow

from multiprune import run as whole_run
from multiprune.tracking.csv import MetricsCsv
from multiprune.training.module import MultitaskModule

if TYPE_CHECKING:
    from pathlib import Path


SETTINGS = (*SMALL, "pruner=movement", "budget.fraction=0.3", "checkpoint.every_n_steps=3")


class KilledError(BaseException):
    """Stands for a kill: nothing is written on the way out."""


def killed(folder: Path, *settings: str, owner: Any, name: str, at: int) -> None:
    """Run until something is done for the ``at``-th time."""
    calls, method = count(1), getattr(owner, name)

    def counted(*given: Any, **named: Any) -> Any:
        if next(calls) == at:
            raise KilledError
        return method(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, counted)
        patch.setattr(MetricsCsv, "finalize", lambda *_: None)
        with pytest.raises(KilledError):
            run_in(folder, *settings)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Return the cells that are not empty, by row."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: cell for key, cell in row.items() if cell} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    found = {}
    for steps in ("9", "12"):
        folder = tmp_path_factory.mktemp(steps)
        run_in(folder, *SETTINGS, f"trainer.max_steps={steps}")
        found[steps] = rows_of(folder)
    return found


@pytest.mark.parametrize(
    "stop",
    [
        ("12", MultitaskModule, "training_step", 5),
        # The step is saved, but what is logged of it is not written yet.
        ("12", MetricsCsv, "save", 6),
        ("9", whole_run, "finish", 1),
        *slow(
            ("12", MultitaskModule, "training_step", 12),
            ("12", MultitaskModule, "validation_step", 2),
            ("12", MetricsCsv, "log_metrics", 10),
            ("12", whole_run, "write", 1),
            ("9", MultitaskModule, "validation_step", 2),
        ),
    ],
)
def test_curves_of_a_killed_run_are_those_of_a_straight_one(
    stop: tuple[str, Any, str, int], straight: dict[str, list[dict[str, str]]], tmp_path: Path
) -> None:
    steps, owner, name, at = stop
    settings = (*SETTINGS, f"trainer.max_steps={steps}")
    killed(tmp_path, *settings, owner=owner, name=name, at=at)
    run_in(tmp_path, *settings)
    assert rows_of(tmp_path) == straight[steps]


@pytest.mark.parametrize("damage", [b"\0\xff,", b"step,loss\n1", b"", b'"'])
def test_a_run_with_a_checkpoint_goes_on_from_curves_that_are_damaged(
    damage: bytes,
    straight: dict[str, list[dict[str, str]]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = (*SETTINGS, "trainer.max_steps=12")
    killed(tmp_path, *settings, owner=MultitaskModule, name="training_step", at=9)
    (tmp_path / "metrics.csv").write_bytes(damage)
    run_in(tmp_path, *settings)
    assert "metrics.csv is repaired up to step 5: " in caplog.text
    # Of the step that the checkpoint is of, it knows what was logged.
    first, *others = rows_of(tmp_path)
    assert first.items() <= straight["12"][5].items()
    assert others == straight["12"][6:]
    assert (tmp_path / "metrics.csv.damaged").read_bytes() == damage
