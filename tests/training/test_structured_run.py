"""Structured pruning by the callback: the cut in a Trainer's run, its resumption and its limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.strategies import DDPStrategy
from tiny_encoders import HIDDEN, tiny_encoder, tokens
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from multiprune.budget import FractionBudget
from multiprune.models.modeling_multiprune import DroppedLayer
from multiprune.pruning.importance import GateGradient
from multiprune.pruning.removal import GRANULARITIES, HEADS, LAYERS, NEURONS
from multiprune.pruning.schedule import CubicSchedule
from multiprune.pruning.structured import Structured
from multiprune.training import Pruning
from multiprune.training.pruning import _rebuild_reducer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytorch_lightning.utilities.types import OptimizerLRScheduler

BATCHES, EPOCHS, STOP_STEP = 2, 6, 8
STEPS = BATCHES * EPOCHS


class Finetuned(pl.LightningModule):
    """A tiny BERT with a head."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.encoder = tiny_encoder("bert", dtype=torch.float32, seed=seed)
        torch.manual_seed(seed)
        self.head = nn.Linear(HIDDEN, 2)

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        ids, mask = batch
        states = self.encoder(ids, attention_mask=mask).last_hidden_state
        return functional.cross_entropy(self.head(states.mean(1)), ids[:, 0] % 2)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.1)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}


class Watch(pl.Callback):
    """Notes after each batch how many weights the linear layers hold."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        encoder = pl_module.get_submodule("encoder")
        linear = [one for one in encoder.modules() if isinstance(one, nn.Linear)]
        self.sizes.append(sum(one.weight.numel() for one in linear))
        owned = [one for group in trainer.optimizers[0].param_groups for one in group["params"]]
        assert list(map(id, owned)) == list(map(id, pl_module.parameters()))


def loader() -> DataLoader[tuple[Tensor, ...]]:
    batches = [tokens(number) for number in range(BATCHES)]
    ids, masks = (
        torch.cat([batch[key] for batch in batches]) for key in ("input_ids", "attention_mask")
    )
    return DataLoader(TensorDataset(ids, masks), batch_size=3)


def pruning_with(
    granularity: Sequence[str] = (HEADS, NEURONS), *, fraction: float = 0.4
) -> Pruning:
    pruner = Structured(
        budget=FractionBudget(fraction=fraction),
        importance=GateGradient(smoothing=0.9),
        granularity=granularity,
    )
    schedule = CubicSchedule(start=0.0, stop=STOP_STEP / STEPS)
    return Pruning(pruner, schedule, every_n_steps=3, encoder="encoder")


def trainer_with(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
        **{"enable_checkpointing": False, "gradient_clip_val": 1.0, **options},
    )


def fitted(
    pruning: Pruning, folder: Path, *, resume: int | None = None, seed: int = 0
) -> Finetuned:
    module = Finetuned(seed)
    saving = ModelCheckpoint(folder, filename="{step}", save_top_k=-1)
    trainer = trainer_with(folder, pruning, saving, enable_checkpointing=True)
    last = None if resume is None else str(folder / f"step={resume}.ckpt")
    trainer.fit(module, loader(), ckpt_path=last)
    assert trainer.global_step == STEPS
    return module


def test_layers_are_cut_at_the_stop_and_trained_on(tmp_path: Path) -> None:
    pruning, watch, module = pruning_with(GRANULARITIES), Watch(), Finetuned()
    trainer_with(tmp_path, pruning, watch).fit(module, loader())
    kept = pruning.pruner.ledger().kept_in("encoder_linear")
    dense = pruning.pruner.ledger().dense_in("encoder_linear")
    assert watch.sizes == [dense] * (STOP_STEP - 1) + [kept] * (STEPS - STOP_STEP + 1)
    assert kept <= 0.4 * dense
    assert pruning.finished


@pytest.mark.parametrize(
    ("granularity", "fraction"),
    [((HEADS, NEURONS), 0.4), ((LAYERS,), 0.5), (GRANULARITIES, 0.3)],
    ids=["heads_and_neurons", "layers", "everything"],
)
def test_resumed_run_ends_as_one_that_was_not_stopped(
    granularity: tuple[str, ...], fraction: float, tmp_path: Path
) -> None:
    first = pruning_with(granularity, fraction=fraction)
    straight = fitted(first, tmp_path)
    expected = {key: one.numpy().tobytes() for key, one in straight.state_dict().items()}
    dropped = [one for one in straight.modules() if isinstance(one, DroppedLayer)]
    assert len(dropped) == 1 or granularity != (LAYERS,)
    # Between two rankings, right after one, right after the cut, and healing.
    for step in (4, 6, STOP_STEP, 10):
        second = pruning_with(granularity, fraction=fraction)
        resumed = fitted(second, tmp_path, resume=step, seed=1)
        bits = {key: one.numpy().tobytes() for key, one in resumed.state_dict().items()}
        assert bits == expected, f"resumed after step {step}"
        assert second.pruner.ledger() == first.pruner.ledger()


@pytest.fixture
def _distributed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Reduced(pl.Callback):
    """Notes the number of parameters that DDP reduces."""

    def __init__(self) -> None:
        self.same: list[bool] = []

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        wrapped = trainer.strategy.model
        assert isinstance(wrapped, DistributedDataParallel)
        reduced = [id(one) for one in wrapped._module_parameters]
        self.same.append(reduced == [id(one) for one in pl_module.parameters()])


@pytest.mark.usefixtures("_distributed")
def test_ddp_with_a_single_process_trains_on(tmp_path: Path) -> None:
    expected = Finetuned()
    trainer_with(tmp_path, pruning_with()).fit(expected, loader())
    module, reduced = Finetuned(), Reduced()
    options: dict[str, Any] = {"strategy": "ddp", "devices": 1, "use_distributed_sampler": False}
    trainer_with(tmp_path, pruning_with(), reduced, **options).fit(module, loader())
    assert reduced.same == [True] * STEPS
    for path, parameter in module.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(path))


def test_strategy_that_cannot_take_new_parameters_is_refused() -> None:
    class Sharding:
        pass

    trainer: Any = SimpleNamespace(strategy=Sharding())
    with pytest.raises(RuntimeError, match=r"DDP trains, but not with Sharding\."):
        _rebuild_reducer(trainer)


def test_reducer_is_rebuilt_around_the_module_itself() -> None:
    module = Finetuned()
    calls = []
    strategy = DDPStrategy()
    strategy._lightning_module = module
    strategy.configure_ddp = lambda: calls.append(strategy.model)  # type: ignore[method-assign]
    trainer: Any = SimpleNamespace(strategy=strategy)
    _rebuild_reducer(trainer)
    assert calls == [module]


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step:UserWarning")
def test_steps_that_a_gradient_scaler_skips_leave_importance_alone(tmp_path: Path) -> None:
    # Gradients above 65504 overflow in fp16; the scaler halves its factor until they do not.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=1000)
    precision = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    pruning, module = pruning_with(GRANULARITIES), Finetuned()
    trainer = trainer_with(tmp_path, pruning, plugins=[precision], gradient_clip_val=None)
    trainer.fit(module, loader())
    taken = pruning.pruner.progress.step
    assert 2 < taken < STEPS
    for name, buffer in module.named_buffers():
        assert torch.isfinite(buffer).all(), name
    assert any(one.any() for name, one in module.named_buffers() if "importance" in name)
