from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiers import slow
from tiny_run import InterruptionError, assert_same, tiny_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiny_run import Run

PRUNERS = sorted((Path(__file__).parents[2] / "conf" / "pruner").glob("*.yaml"))
STEPS = 12
EPOCH = 6


def test_there_are_pruners_to_test() -> None:
    assert len(PRUNERS) >= 5


@pytest.fixture(scope="module")
def straight_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Run]:
    """Runs that were not stopped, one a pruner."""

    @cache
    def made(pruner: Path) -> Run:
        run = tiny_run(tmp_path_factory.mktemp("straight"), pruner, every_n_steps=1000)
        run.trainer.fit(run.module, run.data)
        assert run.trainer.global_step == STEPS
        return run

    return made


# After the first step, mid-epoch between two rankings, at the end of an epoch, at the end of the
# schedule (step 9), in the healing phase.
@pytest.mark.parametrize("stop_at", [1, EPOCH, 9, *slow(5, 11)])
@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda file: file.stem)
def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    pruner: Path, stop_at: int, straight_run: Callable[[Path], Run], tmp_path: Path
) -> None:
    straight = straight_run(pruner)
    stopped = tiny_run(tmp_path / "stopped", pruner, stop_at=stop_at)
    with pytest.raises(InterruptionError):
        stopped.trainer.fit(stopped.module, stopped.data)

    resumed = tiny_run(tmp_path / "stopped", pruner)
    last = tmp_path / "stopped" / "last.ckpt"
    resumed.trainer.fit(resumed.module, resumed.data, ckpt_path=str(last), weights_only=True)
    assert resumed.trainer.global_step == STEPS
    assert_same(resumed.state(), straight.state())
    assert resumed.trainer.callback_metrics.keys() >= {"val/score"}
    for key, value in straight.trainer.callback_metrics.items():
        if key.startswith("val/"):
            assert resumed.trainer.callback_metrics[key] == value
    assert resumed.best.best_model_score == straight.best.best_model_score


def test_a_run_that_is_stopped_and_resumed_with_workers_ends_as_one_without(
    straight_run: Callable[[Path], Run], tmp_path: Path
) -> None:
    pruner = next(file for file in PRUNERS if file.stem == "movement")
    straight = straight_run(pruner)
    # In the midst of the second epoch, when its other batches are made already.
    stopped = tiny_run(tmp_path, pruner, stop_at=8, workers=2)
    with pytest.raises(InterruptionError):
        stopped.trainer.fit(stopped.module, stopped.data)
    resumed = tiny_run(tmp_path, pruner, workers=2)
    last = tmp_path / "last.ckpt"
    resumed.trainer.fit(resumed.module, resumed.data, ckpt_path=str(last), weights_only=True)
    assert resumed.trainer.global_step == STEPS
    assert_same(resumed.state(), straight.state())
