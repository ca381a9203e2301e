"""Losses that are not finite end a run before anything is made of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytorch_lightning as pl
import torch
from tiny_run import tiny_run
from typing_extensions import override

from multiprune.tracking.csv import MetricsCsv
from multiprune.training.finite import FiniteLosses

if TYPE_CHECKING:
    from tiny_run import Run
    from torch import Tensor

PRUNERS = Path(__file__).parents[2] / "conf" / "pruner"

ADVICE = "lower the learning rate, or clip gradients."


class Spoil(pl.Callback):
    """Makes the loss of one batch NaN, and counts the optimizer steps of the run."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.task = ""
        self.steps = 0
        self.validations = 0
        self._batches = 0

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def count(*_: Any) -> None:
            self.steps += 1

        trainer.optimizers[0].register_step_post_hook(count)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._batches == self.batch:
            self.task = batch.task
            with torch.no_grad():
                for parameter in pl_module.get_submodule("model.heads").parameters():
                    parameter.fill_(float("nan"))
        self._batches += 1

    @override
    def on_validation_batch_start(self, *_: Any, **__: Any) -> None:
        self.validations += 1


def spoiled(folder: Path, batch: int, pruner: str = "none", **options: Any) -> tuple[Run, Spoil]:
    run, spoil = tiny_run(folder, PRUNERS / f"{pruner}.yaml", **options), Spoil(batch)
    run.trainer.callbacks[:0] = [spoil]  # type: ignore[attr-defined]
    return run, spoil


def refusal(run: Run) -> str:
    with pytest.raises(FloatingPointError) as refused:
        run.trainer.fit(run.module, run.data)
    return str(refused.value)


def sentence(spoil: Spoil, step: int) -> str:
    return f"The training loss is nan for task {spoil.task} at step {step}: {ADVICE}"


# Batches have a task each, in an order that is the plan's: the next batch may be of another.
@pytest.mark.parametrize("batch", [0, 1, 2, 3, 4, 7])
def test_task_and_step_are_those_of_the_loss_and_no_step_follows(
    batch: int, tmp_path: Path
) -> None:
    run, spoil = spoiled(tmp_path, batch, every_n_steps=1000, log_every_n_steps=1000)
    assert refusal(run) == sentence(spoil, batch)
    assert spoil.steps == batch + 1


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_accumulated_batches_are_checked_each(batch: int, tmp_path: Path) -> None:
    run, spoil = spoiled(tmp_path, batch, accumulate=3, every_n_steps=1000, log_every_n_steps=1000)
    assert refusal(run) == sentence(spoil, batch // 3)
    assert spoil.steps == (batch + 1) // 3


# At step 4 it ranks: its scores are NaN then, which is refused as well.
@pytest.mark.parametrize("pruner", ["magnitude", "movement", "structured", "low_rank_gradual"])
def test_a_ranking_after_it_is_no_reason_of_its_own(pruner: str, tmp_path: Path) -> None:
    run, spoil = spoiled(tmp_path, 3, pruner, every_n_steps=1000, log_every_n_steps=1000)
    assert refusal(run) == sentence(spoil, 3)


def test_no_checkpoint_holds_what_came_of_it(tmp_path: Path) -> None:
    run, spoil = spoiled(tmp_path, 4, every_n_steps=1, log_every_n_steps=1000)
    assert refusal(run) == sentence(spoil, 4)
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4
    assert all(bool(one.isfinite().all()) for one in last["state_dict"].values())


def test_a_log_of_it_is_not_written(tmp_path: Path) -> None:
    run, spoil = spoiled(tmp_path, 4, every_n_steps=1000, log_every_n_steps=1)
    run.trainer.loggers = [MetricsCsv(str(tmp_path))]
    assert refusal(run) == sentence(spoil, 4)
    assert spoil.steps == 5
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3]
    assert "nan" not in {cell for row in rows for cell in row.values()}


@pytest.mark.parametrize(("batch", "evaluated"), [(5, 0), (11, 2)])
def test_nothing_is_evaluated_after_it(batch: int, evaluated: int, tmp_path: Path) -> None:
    run, spoil = spoiled(tmp_path, batch, every_n_steps=1000, log_every_n_steps=1000)
    assert refusal(run) == sentence(spoil, batch)
    assert spoil.validations == evaluated


def test_the_last_step_of_a_run_that_evaluates_nothing_is_checked(tmp_path: Path) -> None:
    run, spoil = spoiled(
        tmp_path, 11, every_n_steps=1000, log_every_n_steps=1000, limit_val_batches=0
    )
    assert refusal(run) == sentence(spoil, 11)


def test_an_error_of_another_kind_stays_what_it_is(tmp_path: Path) -> None:
    run, _ = spoiled(tmp_path, 1000, every_n_steps=1000)

    def fail(*_: Any) -> None:
        raise RuntimeError("Something else.")

    run.pruning.pruner.after_step = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match=r"Something else\."):
        run.trainer.fit(run.module, run.data)


def test_a_run_that_has_failed_may_begin_anew(tmp_path: Path) -> None:
    run, spoil = spoiled(tmp_path, 4, every_n_steps=1000, log_every_n_steps=1000)
    run.module._losses.note({"of an earlier run": torch.tensor(float("nan"))}, 0)
    assert refusal(run) == sentence(spoil, 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_each_loss_is_checked_once_and_late(value: float) -> None:
    losses = FiniteLosses()
    losses.note({"other": torch.tensor(0.5), "first": torch.tensor(value)}, 3)
    with pytest.raises(FloatingPointError, match=rf"is {value} for task first at step 3: "):
        losses.note({"second": torch.tensor(1.0)}, 4)
    losses.note({"second": torch.tensor(2.0), "third": torch.tensor(0.5)}, 4)
    assert losses.check() == 2.5
    assert losses.check() is None


def test_gradients_of_a_noted_loss_are_its_own() -> None:
    weight: Tensor = torch.ones((), requires_grad=True)
    loss, losses = weight * 3, FiniteLosses()
    losses.note({"task": loss}, 0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad == 3
    assert losses.check() == 3
