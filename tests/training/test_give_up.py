"""When a job of a sweep ends itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from application import SMALL, run_in
from run_folders import record_with

from multiprune.runs.budget_outcome import BudgetOutcome
from multiprune.runs.status import GaveUpError
from multiprune.training.give_up import GiveUp, Rival, better_rivals, read_rivals

if TYPE_CHECKING:
    from pathlib import Path

EARLY, LATE = (0.5, 0.6), (1.0, 0.8)


def test_rivals_are_met_at_the_same_share_of_their_steps() -> None:
    rival = Rival(10, [EARLY, LATE])
    assert rival.score_at(0.4) is None
    assert rival.score_at(0.5) == rival.score_at(0.99) == 0.6
    assert rival.score_at(1.0) == 0.8


@pytest.mark.parametrize(
    ("kept", "share", "score", "better"),
    [
        (100, 0.5, 0.5, 2),  # the third is larger
        (99, 0.5, 0.5, 1),
        (200, 0.5, 0.5, 3),
        (200, 0.5, 0.551, 0),  # within the margin of 0.05
        (200, 0.4, 0.0, 0),  # none had a score by then
        (200, 1.0, 0.7, 3),
    ],
)
def test_only_smaller_and_clearly_better_ones_count(
    kept: int, share: float, score: float, better: int
) -> None:
    rivals = [Rival(size, [EARLY, LATE]) for size in (50, 100, 200)]
    assert better_rivals(rivals, kept=kept, share=share, score=score, margin=0.05) == better


def write_rival(folder: Path, kept: int) -> None:
    folder.mkdir()
    budget = BudgetOutcome(scope="encoder_linear", dense=1000, asked=1000, kept=kept)
    record_with(steps=20, budget=budget).write(folder)
    # Training rows have no score; the step of the last evaluation is that of the last row.
    (folder / "metrics.csv").write_text("step,loss,val/score\n5,1.0,\n10,0.5,0.6\n20,0.2,0.8\n")


def trainer_at(step: int, score: float, **changed: Any) -> Any:
    return SimpleNamespace(
        **{
            "state": SimpleNamespace(fn="fit"),
            "sanity_checking": False,
            "estimated_stepping_batches": 40,
            "global_step": step,
            "callback_metrics": {"val/score": score},
            "is_global_zero": True,
            "strategy": SimpleNamespace(broadcast=lambda value: value),
        }
        | changed
    )


@pytest.fixture
def give_up(tmp_path: Path) -> GiveUp:
    for number in range(2):
        write_rival(tmp_path / str(number), kept=100)
    (tmp_path / "running").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "results.json").write_text("{")
    callback = GiveUp(folder=str(tmp_path / "own"), rivals=2, margin=0.05, after=0.5)
    callback.kept = 100
    return callback


def test_rivals_are_the_finished_runs_beside_the_own(give_up: GiveUp) -> None:
    assert read_rivals(give_up.folder) == [Rival(100, [EARLY, LATE])] * 2


def test_hopeless_run_ends_and_says_why(give_up: GiveUp) -> None:
    with pytest.raises(GaveUpError, match=r"Stopped early: 2 finished runs"):
        give_up.on_validation_end(trainer_at(20, 0.54), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "trainer",
    [
        trainer_at(20, 0.55),  # as good, but for the margin
        trainer_at(19, 0.0),  # too early
        trainer_at(40, 0.0),  # finished
        trainer_at(20, 0.0, sanity_checking=True),
        trainer_at(20, 0.0, state=SimpleNamespace(fn="validate")),
    ],
)
def test_others_go_on(give_up: GiveUp, trainer: Any) -> None:
    give_up.on_validation_end(trainer, None)  # type: ignore[arg-type]


def test_all_processes_end_together(give_up: GiveUp) -> None:
    # The others do not read; they hear from the first.
    told = SimpleNamespace(broadcast=lambda _: 2)
    trainer = trainer_at(20, 0.54, is_global_zero=False, strategy=told)
    with pytest.raises(GaveUpError):
        give_up.on_validation_end(trainer, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"rivals": 0}, {"margin": -0.1}, {"after": 1.0}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"folder": "x", "rivals": 1, "margin": 0.0, "after": 0.0}
    with pytest.raises(ValueError, match=r"`(rivals|margin|after)` must be .*but is "):
        GiveUp(**settings | wrong)


def test_run_of_its_own_cannot_give_up(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="`give_up` needs a sweep"):
        run_in(tmp_path / "run", *SMALL, "give_up=hopeless")
