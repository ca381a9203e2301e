"""Runs whose pruners keep the gradients of each task apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from omegaconf import OmegaConf
from tiny_run import InterruptionError, assert_same, tasks, tiny_run

from multiprune.pruning.ready import NotReadyError

if TYPE_CHECKING:
    from tiny_run import Run

CONF = Path(__file__).parents[2] / "conf" / "pruner"

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def run_by_task(folder: Path, name: str, checkpoint: Path | None = None, **options: Any) -> Run:
    folder.mkdir(exist_ok=True)
    config = OmegaConf.load(CONF / f"{name}.yaml")
    config.by_task = OmegaConf.load(CONF / "by_task" / "highest_rank.yaml")
    file = folder / f"{name}.yaml"
    OmegaConf.save(config, file)
    run = tiny_run(folder, file, **options)
    run.trainer.fit(run.module, run.data, ckpt_path=checkpoint, weights_only=True)
    return run


@pytest.mark.parametrize("name", ["fisher", "structured"])
def test_a_run_that_was_stopped_continues_bit_for_bit(name: str, tmp_path: Path) -> None:
    straight = run_by_task(tmp_path / "straight", name)
    with pytest.raises(InterruptionError):
        run_by_task(tmp_path / "stopped", name, stop_at=5)
    last = tmp_path / "stopped" / "last.ckpt"
    resumed = run_by_task(tmp_path / "stopped", name, last)
    assert resumed.trainer.global_step == 12
    assert_same(resumed.state(), straight.state())


def test_the_tasks_are_those_of_the_heads_and_each_has_gathered_something(tmp_path: Path) -> None:
    run = run_by_task(tmp_path, "fisher")
    by_task = run.pruning.pruner.by_task
    assert by_task is not None
    assert by_task.tasks == [*tasks()]
    state = run.state()
    gathered = [value for key, value in state.items() if key.endswith("weight_fisher")]
    assert all(len(one) == 2 for one in gathered)
    first, second = (torch.stack([one[task].sum() for one in gathered]).sum() for task in (0, 1))
    assert 0 < first != second > 0


def test_gradients_accumulated_over_batches_of_two_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="agreement, quantity: neither accumulate gradients"):
        run_by_task(tmp_path, "fisher", accumulate=3)
