"""Averages in a Trainer that prunes: Lightning's are refused, torch's work at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    EMAWeightAveraging,
    StochasticWeightAveraging,
    WeightAveraging,
)
from test_pruning_callback import BODY, Foreign, loader, pruning_with, trainer_with
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from typing_extensions import override

from multiprune.budget import FullBudget
from multiprune.pruning.magnitude import Magnitude
from multiprune.pruning.movement import Movement
from multiprune.pruning.none import NoPruning
from multiprune.pruning.schedule import LinearSchedule
from multiprune.training import Pruning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CALLBACKS: dict[str, Callable[[], pl.Callback]] = {
    "WeightAveraging": WeightAveraging,
    "EMAWeightAveraging": lambda: EMAWeightAveraging(update_starting_at_step=18),
    "StochasticWeightAveraging": lambda: StochasticWeightAveraging(swa_lrs=0.1),
}


class AverageOfTheEnd(pl.Callback):
    """What the refusal tells to do."""

    def __init__(self, pruning: Pruning) -> None:
        self.pruning = pruning
        self.average: AveragedModel | None = None

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        if self.pruning.finished:
            if self.average is None:
                self.average = AveragedModel(pl_module, multi_avg_fn=get_ema_multi_avg_fn(0.9))
            self.average.update_parameters(pl_module)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.average is not None
        pl_module.load_state_dict(self.average.module.state_dict())


@pytest.mark.parametrize("comes_first", [True, False])
@pytest.mark.parametrize("name", CALLBACKS)
def test_lightnings_averages_are_refused_in_a_sentence(
    name: str, comes_first: bool, tmp_path: Path
) -> None:
    pruning, callback = pruning_with(Magnitude), CALLBACKS[name]()
    callbacks = [callback, pruning] if comes_first else [pruning, callback]
    module = Foreign()
    with pytest.raises(ValueError, match=rf"^{name} cannot average weights that .* is true\.$"):
        trainer_with(tmp_path, *callbacks).fit(module, loader())
    assert not dict(module.named_buffers())


def test_a_dense_baseline_may_be_averaged(tmp_path: Path) -> None:
    pruning = Pruning(NoPruning(budget=FullBudget()), LinearSchedule(start=0, stop=0.5))
    trainer_with(tmp_path, pruning, EMAWeightAveraging(decay=0.9)).fit(Foreign(), loader())


@pytest.mark.parametrize("movement", [True, False])
def test_an_average_that_begins_at_the_end_is_exported_at_the_budget(
    movement: bool, tmp_path: Path
) -> None:
    def pruner(**options: Any) -> Any:
        return Movement(score_learning_rate=0.01, **options) if movement else Magnitude(**options)

    pruning, module = pruning_with(pruner), Foreign()
    averaging = AverageOfTheEnd(pruning)
    trainer_with(tmp_path, pruning, averaging).fit(module, loader())
    assert averaging.average is not None
    # The schedule ends after 16 of 20 steps, and the first that counts is that one.
    assert averaging.average.n_averaged == 5
    pruning.pruner.finalize()
    weights = [one.weight for one in module.body if isinstance(one, torch.nn.Linear)]
    assert sum(int(one.count_nonzero()) for one in weights) == BODY // 4
