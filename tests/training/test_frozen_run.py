"""Whole runs with frozen weights: nothing of the encoder moves, whatever the recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from application import ROOT
from tiny_run import tiny_run

from multiprune.pruning.frozen_movement import FrozenMovement

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("accumulate", [1, 2])
def test_encoder_is_that_of_the_start_times_masks(accumulate: int, tmp_path: Path) -> None:
    # The recipe has weight decay and clipping, and a learning rate that moves whatever may move.
    file = ROOT / "conf" / "pruner" / "frozen_movement.yaml"
    run = tiny_run(tmp_path, file, accumulate=accumulate)
    start = run.state()
    run.trainer.fit(run.module, run.data)
    pruner = run.pruning.pruner
    assert isinstance(pruner, FrozenMovement)
    assert run.pruning.finished
    pruner.finalize()
    masks = pruner.masks()
    assert (
        0
        < sum(int(mask.sum()) for mask in masks.values())
        <= pruner.budget.resolve(pruner.ledger())
    )
    for path, tensor in run.module.state_dict().items():
        if path.startswith("model.heads."):
            assert not torch.equal(tensor, start[path]), path
        else:
            expected = start[path] * masks[path] if path in masks else start[path]
            assert torch.equal(tensor, expected), path
    trained = [one for group in run.trainer.optimizers[0].param_groups for one in group["params"]]
    heads = {id(one) for one in run.module.model.heads.parameters()}
    # Moments are kept of what moves, and of nothing else.
    state = run.trainer.optimizers[0].state
    assert {id(one) for one in trained if one in state} == heads


def test_scores_were_learned(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, ROOT / "conf" / "pruner" / "frozen_movement.yaml")
    run.trainer.fit(run.module, run.data)
    scores = [one for key, one in run.state().items() if key.endswith("_scores")]
    assert len(scores) == 12
    assert all(one.any() for one in scores)
