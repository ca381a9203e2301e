"""Ways of training in a Trainer of Lightning, with the callbacks that it brings."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from composition_ways import assert_pruned, assert_same
from composition_world import Fit
from pytorch_lightning.callbacks import (
    BatchSizeFinder,
    Callback,
    EarlyStopping,
    LearningRateFinder,
)
from pytorch_lightning.tuner.tuning import Tuner

if TYPE_CHECKING:
    from pathlib import Path


@cache
def plain_fit(family: str, folder: Path, batch_size: int = 3) -> Fit:
    """Return a fit in which nothing is done besides training."""
    fit = Fit(family, folder)
    fit.model.batch_size = batch_size
    return fit.trained()


def assert_fit(fit: Fit, *, like: Fit | None = None) -> None:
    """Hold a fit to the promises, and against one that it must be like."""
    if like is not None:
        assert_same(fit.model, like.model)
    assert_pruned(fit.model, fit.pruner)


def averaged(family: str, folder: Path, callback: Callback) -> None:
    assert_fit(Fit(family, folder).trained(callback))


def learning_rate_tuned(family: str, folder: Path) -> None:
    fit = Fit(family, folder)
    trainer = fit.trainer()
    Tuner(trainer).lr_find(fit.model, num_training=8, update_attr=False)
    assert fit.pruner.progress.step == 0
    trainer.fit(fit.model)
    assert_fit(fit, like=plain_fit(family, folder))


def learning_rate_found(family: str, folder: Path) -> None:
    finder = LearningRateFinder(num_training_steps=8, update_attr=False)
    fit = Fit(family, folder).trained(finder)
    assert finder.optimal_lr is not None
    assert finder.optimal_lr.results["lr"]
    assert_fit(fit, like=plain_fit(family, folder))


def batch_size_tuned(family: str, folder: Path) -> None:
    fit = Fit(family, folder)
    trainer = fit.trainer()
    Tuner(trainer).scale_batch_size(fit.model, max_trials=1, init_val=2)
    trainer.fit(fit.model)
    assert_fit(fit, like=plain_fit(family, folder, fit.model.batch_size))


def batch_size_found(family: str, folder: Path) -> None:
    fit = Fit(family, folder).trained(BatchSizeFinder(max_trials=1, init_val=2))
    assert_fit(fit, like=plain_fit(family, folder, fit.model.batch_size))


def stopped(family: str, folder: Path, *, patience: int) -> None:
    """Stop after as many epochs and one, as nothing gets better by so much."""
    stop = EarlyStopping("val_loss", patience=patience, min_delta=1e9)
    assert_fit(Fit(family, folder, {"max_epochs": 6}).trained(stop))


def accumulated_and_clipped(family: str, folder: Path) -> None:
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1, "max_epochs": 6}
    assert_fit(Fit(family, folder, options).trained())
