"""The callback in a plain Trainer, with a LightningModule that knows nothing of this package."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from multiprune.budget import FractionBudget, FullBudget
from multiprune.pruning.frozen_movement import FrozenMovement
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.magnitude import Magnitude
from multiprune.pruning.movement import Movement
from multiprune.pruning.none import NoPruning
from multiprune.pruning.platon import Platon
from multiprune.pruning.progress import STEP
from multiprune.pruning.pruner import UnfinishedPruningError
from multiprune.pruning.schedule import LinearSchedule
from multiprune.pruning.soft_movement import SoftMovement
from multiprune.training import Pruning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytorch_lightning.utilities.types import OptimizerLRScheduler

    from multiprune.pruning.pruner import Pruner

BODY = 6 * 10 + 10 * 10
HEAD = 10 * 2
BATCHES = 5
EPOCHS = 4
STEPS = BATCHES * EPOCHS

PRUNERS: dict[str, Callable[..., Pruner]] = {
    "magnitude": Magnitude,
    "movement": partial(Movement, score_learning_rate=0.01),
    "frozen_movement": partial(FrozenMovement, score_learning_rate=0.01),
    "soft_movement": partial(SoftMovement, score_learning_rate=0.01, threshold=0.1, penalty=10.0),
    "platon": partial(Platon, beta1=0.85, beta2=0.95),
}
each_pruner = pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS.keys())


class Foreign(pl.LightningModule):
    """A body of 160 linear weights, a head of 20."""

    def __init__(self, *, adaptive: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 10))
        self.head = nn.Linear(10, 2)
        self.adaptive = adaptive

    @override
    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(features))
        return logits

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, labels = batch
        return functional.cross_entropy(self(features), labels)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.adaptive:
            return torch.optim.Adam(self.parameters(), lr=0.01)
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class TwoOptimizers(Foreign):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        return [torch.optim.SGD(one.parameters(), lr=0.1) for one in (self.body, self.head)]


class Watch(pl.Callback):
    """Notes after each batch how far pruning is, and that what is pruned is zero."""

    def __init__(self, pruning: Pruning) -> None:
        self.pruning = pruning
        self.finished: list[bool] = []
        self.kept: list[int] = []

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        masks = self.pruning.pruner.masks()
        for path, mask in masks.items():
            assert not pl_module.get_parameter(path)[~mask].any()
        self.finished.append(self.pruning.finished)
        self.kept.append(sum(int(mask.sum()) for mask in masks.values()))


class Recording(Magnitude):
    """Magnitude pruning that notes the amounts it was asked for."""

    amounts: list[float]

    @override
    def prune(self, amount: float) -> None:
        self.amounts = [*getattr(self, "amounts", []), amount]
        super().prune(amount)


def loader() -> DataLoader[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(8 * BATCHES, 6, generator=generator)
    return DataLoader(TensorDataset(features, (features.sum(1) > 0).long()), batch_size=8)


def pruning_with(
    pruner: Callable[..., Pruner],
    *,
    fraction: float = 0.25,
    encoder: str = "body",
    stop: float = 0.8,
    every_n_steps: int = 3,
) -> Pruning:
    return Pruning(
        pruner(budget=FractionBudget(fraction=fraction)),
        LinearSchedule(start=0.0, stop=stop),
        every_n_steps=every_n_steps,
        encoder=encoder,
    )


def trainer_with(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {"max_epochs": EPOCHS, "enable_checkpointing": False, **options}
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
        **settings,
    )


def saving(folder: Path) -> ModelCheckpoint:
    """Save after steps 10 and 20."""
    return ModelCheckpoint(folder, filename="{step}", save_top_k=-1, every_n_epochs=2)


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def different(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [key for key in first if not torch.equal(first[key], second[key])]


@pytest.mark.parametrize("adaptive", [False, True], ids=["sgd", "adam"])
@each_pruner
def test_only_the_named_encoder_is_pruned_exactly_to_the_budget(
    pruner: Callable[..., Pruner], adaptive: bool, tmp_path: Path
) -> None:
    module, pruning = Foreign(adaptive=adaptive), pruning_with(pruner)
    watch = Watch(pruning)
    trainer_with(tmp_path, pruning, watch).fit(module, loader())
    assert list(pruning.pruner.masks()) == ["body.0.weight", "body.2.weight"]
    assert watch.kept[0] == BODY
    assert watch.kept[-1] == BODY // 4
    nonzero = {name: int(one.count_nonzero()) for name, one in module.named_parameters()}
    assert nonzero["body.0.weight"] + nonzero["body.2.weight"] == BODY // 4
    assert nonzero["head.weight"] == HEAD


def test_without_an_encoder_the_whole_module_is_pruned(tmp_path: Path) -> None:
    module, pruning = Foreign(), pruning_with(Magnitude, encoder="")
    watch = Watch(pruning)
    trainer_with(tmp_path, pruning, watch).fit(module, loader())
    assert list(pruning.pruner.masks()) == ["body.0.weight", "body.2.weight", "head.weight"]
    assert watch.kept[-1] == (BODY + HEAD) // 4


@each_pruner
def test_trainer_and_a_plain_loop_give_the_same_model(
    pruner: Callable[..., Pruner], tmp_path: Path
) -> None:
    trained, pruning = Foreign(), pruning_with(pruner)
    trainer_with(tmp_path, pruning).fit(trained, loader())

    looped, by_hand = Foreign(), pruner(budget=FractionBudget(fraction=0.25))
    by_hand.prepare(looped, looped.body)
    optimizer = torch.optim.SGD(looped.parameters(), lr=0.1, momentum=0.9)
    schedule = LinearSchedule(start=0.0, stop=0.8)
    GradualPruning(by_hand, schedule, total_steps=STEPS, every_n_steps=3).attach(optimizer)
    for _ in range(EPOCHS):
        for features, labels in loader():
            optimizer.zero_grad()
            functional.cross_entropy(looped(features), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert not different(copied(trained), copied(looped))


def test_finished_from_the_end_of_the_schedule_on(tmp_path: Path) -> None:
    pruning = pruning_with(Magnitude, stop=0.5)
    watch = Watch(pruning)
    assert not pruning.finished
    trainer_with(tmp_path, pruning, watch).fit(Foreign(), loader())
    assert watch.finished == [False] * (STEPS // 2 - 1) + [True] * (STEPS // 2 + 1)


def test_without_anything_to_prune_a_run_is_finished_from_the_start(tmp_path: Path) -> None:
    pruning = Pruning(NoPruning(budget=FullBudget()), LinearSchedule(start=0.0, stop=1.0))
    watch = Watch(pruning)
    trainer_with(tmp_path, pruning, watch, max_epochs=1).fit(Foreign(), loader())
    assert all(watch.finished)
    assert pruning.densities() == {"density": 1.0}


def test_steps_of_gradient_accumulation_are_optimizer_steps(tmp_path: Path) -> None:
    # Five batches in steps of two are three steps an epoch, twelve in all; stop after six.
    pruning = pruning_with(Recording, stop=0.5, every_n_steps=2)
    trainer = trainer_with(tmp_path, pruning, accumulate_grad_batches=2)
    trainer.fit(Foreign(), loader())
    assert pruning.pruner.progress.step == 12
    assert isinstance(pruning.pruner, Recording)
    assert pruning.pruner.amounts == pytest.approx([1 / 3, 2 / 3, 1.0])


class StopAfter(pl.Callback):
    """Ends training early, as early stopping does."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        trainer.should_stop = trainer.global_step >= self.steps


def test_training_that_ends_before_the_schedule_is_refused_with_the_numbers(tmp_path: Path) -> None:
    module, pruning = Foreign(), pruning_with(Magnitude)
    trainer = trainer_with(tmp_path, pruning, StopAfter(7))
    said = r"at step 7 of the schedule's 16: 116 of 160 parameters .* but the budget is 40\. Train"
    with pytest.raises(UnfinishedPruningError, match=said):
        trainer.fit(module, loader())
    with pytest.raises(UnfinishedPruningError, match=said):
        pruning.pruner.finalize()
    pruning.pruner.prune(1.0)
    pruning.pruner.finalize()
    kept = [int(one.count_nonzero()) for one in module.body.parameters() if one.dim() == 2]
    assert sum(kept) == 40


def test_several_optimizers_are_refused(tmp_path: Path) -> None:
    trainer = trainer_with(tmp_path, pruning_with(Magnitude))
    with pytest.raises(ValueError, match="one optimizer, but TwoOptimizers has 2"):
        trainer.fit(TwoOptimizers(), loader())


def test_endless_training_is_refused(tmp_path: Path) -> None:
    trainer = trainer_with(tmp_path, pruning_with(Magnitude), max_epochs=-1)
    with pytest.raises(ValueError, match="Set `max_steps` or `max_epochs`"):
        trainer.fit(Foreign(), loader())


def test_ranking_less_often_than_every_step_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"`every_n_steps` must be .* at least 1, but is 0"):
        pruning_with(Magnitude, every_n_steps=0)


def test_a_trainer_that_never_logs_is_pruned(tmp_path: Path) -> None:
    pruning = pruning_with(Magnitude)
    trainer_with(tmp_path, pruning, log_every_n_steps=0).fit(Foreign(), loader())
    assert pruning.finished


class SkipByHand(pl.Callback):
    """After batch 7: gradients overflow, and the optimizer does not run."""

    def __init__(self, pruning: Pruning) -> None:
        self.pruning = pruning
        self.changed_before_skipping: list[str] = []
        self.changed: list[str] | None = None

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.global_step != 7:
            return
        for parameter in pl_module.parameters():
            parameter.grad = torch.full_like(parameter, float("inf"))
        before = copied(pl_module)
        self.pruning.on_before_optimizer_step(trainer, pl_module, trainer.optimizers[0])
        self.changed_before_skipping = different(before, copied(pl_module))
        self.pruning.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.changed = different(before, copied(pl_module))
        assert self.pruning.pruner.progress.step == 7


@each_pruner
def test_a_step_that_is_not_taken_changes_nothing(
    pruner: Callable[..., Pruner], tmp_path: Path
) -> None:
    pruning = pruning_with(pruner)
    skipping = SkipByHand(pruning)
    trainer_with(tmp_path, pruning, skipping).fit(Foreign(), loader())
    assert skipping.changed == []
    if isinstance(pruning.pruner, Movement):
        # Movement shows its hidden weights to the optimizer, so there was something to undo.
        assert "body.0.weight" in skipping.changed_before_skipping


class NoticeSkipped(pl.Callback):
    """Compares the model before and after each batch in which Adam took no step."""

    def __init__(self) -> None:
        self.skipped = 0
        self.before: dict[str, Tensor] = {}

    def steps_of(self, trainer: pl.Trainer) -> int:
        states = trainer.optimizers[0].state.values()
        return max((int(state["step"]) for state in states), default=0)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.before, self.steps = copied(pl_module), self.steps_of(trainer)

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        changed = different(self.before, copied(pl_module))
        if self.steps_of(trainer) == self.steps:
            self.skipped += 1
            assert changed == []
        else:
            # One method moves no weights, but its scores.
            assert {"body.0.weight", "body.0.weight_scores"} & set(changed)


@each_pruner
def test_steps_that_a_gradient_scaler_skips_do_not_count(
    pruner: Callable[..., Pruner], tmp_path: Path
) -> None:
    # Gradients above 65504 overflow in fp16; the scaler halves its factor until they do not.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**23, growth_interval=6)
    precision = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    pruning, notice = pruning_with(pruner, stop=0.5, every_n_steps=2), NoticeSkipped()
    trainer = trainer_with(tmp_path, pruning, notice, plugins=[precision])
    trainer.fit(Foreign(adaptive=True), loader())
    taken = notice.steps_of(trainer)
    assert 0 < taken < STEPS
    assert notice.skipped == STEPS - taken
    assert pruning.pruner.progress.step == taken


@each_pruner
def test_budget_is_met_at_the_last_step_though_some_were_skipped(
    pruner: Callable[..., Pruner], tmp_path: Path
) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**23, growth_interval=6)
    precision = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    pruning = pruning_with(pruner, stop=1.0)
    watch = Watch(pruning)
    trainer_with(tmp_path, pruning, watch, plugins=[precision]).fit(
        Foreign(adaptive=True), loader()
    )
    assert watch.finished == [False] * (STEPS - 1) + [True]
    assert watch.kept[-1] == BODY // 4


@each_pruner
def test_a_resumed_foreign_run_ends_with_the_same_masks(
    pruner: Callable[..., Pruner], tmp_path: Path
) -> None:
    # Step 10 lies between the rankings after steps 9 and 12.
    straight, first = Foreign(), pruning_with(pruner)
    trainer = trainer_with(tmp_path, first, saving(tmp_path), enable_checkpointing=True)
    trainer.fit(straight, loader())

    resumed, second = Foreign(), pruning_with(pruner)
    trainer = trainer_with(tmp_path, second, saving(tmp_path), enable_checkpointing=True)
    trainer.fit(resumed, loader(), ckpt_path=str(tmp_path / "step=10.ckpt"))
    assert trainer.global_step == STEPS
    assert not different(dict(second.pruner.masks()), dict(first.pruner.masks()))
    assert not different(copied(resumed), copied(straight))
    assert second.finished


def test_a_checkpoint_holds_the_position_in_the_schedule(tmp_path: Path) -> None:
    pruning = pruning_with(Magnitude)
    trainer = trainer_with(tmp_path, pruning, saving(tmp_path), enable_checkpointing=True)
    trainer.fit(Foreign(), loader())
    saved = torch.load(tmp_path / "step=10.ckpt", weights_only=True)
    assert saved["state_dict"][f"body.{STEP}"] == 10
    with pytest.raises(RuntimeError, match="call prepare of the pruner before this state is load"):
        Foreign.load_from_checkpoint(tmp_path / "step=10.ckpt")
    module, again = Foreign(), pruning_with(Magnitude)
    again.prepare(module)
    module.load_state_dict(saved["state_dict"])
    assert again.pruner.progress.step == 10


def test_densities_count_what_each_tensor_keeps() -> None:
    module, pruning = Foreign(), pruning_with(Magnitude)
    pruning.prepare(module)
    assert pruning.densities()["density"] == 1.0
    masks = pruning.pruner.masks()
    masks["body.0.weight"][:5] = False  # 5 of 10 rows of 6
    masks["body.2.weight"][:, :9] = False  # 9 of 10 columns of 10
    assert pruning.densities() == {
        "density": (30 + 10) / 160,
        "density/body.0.weight": 0.5,
        "density/body.2.weight": 0.1,
    }


def test_preparing_twice_is_preparing_once() -> None:
    module, pruning = Foreign(), pruning_with(Magnitude)
    pruning.prepare(module)
    pruning.pruner.masks()["body.0.weight"][:] = False
    pruning.prepare(module)
    assert pruning.densities()["density/body.0.weight"] == 0.0
