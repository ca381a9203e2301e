from __future__ import annotations

from pathlib import Path

import pytest
from tiers import slow
from tiny_run import InterruptionError, assert_same, tiny_run

PRUNERS = sorted((Path(__file__).parents[2] / "conf" / "pruner").glob("*.yaml"))
STEPS = 12
EPOCH = 6


def test_there_are_pruners_to_test() -> None:
    assert len(PRUNERS) >= 5


# After the first step, mid-epoch between two rankings, at the end of an epoch, at the end of the
# schedule (step 9), in the healing phase.
@pytest.mark.parametrize("stop_at", [1, EPOCH, 9, *slow(5, 11)])
@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda file: file.stem)
def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    pruner: Path, stop_at: int, tmp_path: Path
) -> None:
    straight = tiny_run(tmp_path / "straight", pruner, every_n_steps=1000)
    straight.trainer.fit(straight.module, straight.data)
    assert straight.trainer.global_step == STEPS

    stopped = tiny_run(tmp_path / "stopped", pruner, stop_at=stop_at)
    with pytest.raises(InterruptionError):
        stopped.trainer.fit(stopped.module, stopped.data)

    resumed = tiny_run(tmp_path / "stopped", pruner)
    last = tmp_path / "stopped" / "last.ckpt"
    resumed.trainer.fit(resumed.module, resumed.data, ckpt_path=str(last), weights_only=False)
    assert resumed.trainer.global_step == STEPS
    assert_same(resumed.state(), straight.state())
    assert resumed.trainer.callback_metrics.keys() >= {"val/score"}
    for key, value in straight.trainer.callback_metrics.items():
        if key.startswith("val/"):
            assert resumed.trainer.callback_metrics[key] == value
    assert resumed.best.best_model_score == straight.best.best_model_score
