"""The Lightning callback that prunes during training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import StochasticWeightAveraging, WeightAveraging
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from typing_extensions import override

from multiprune.arguments import check_is, check_number
from multiprune.pruning.fingerprint import mask_checksums
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.none import NoPruning
from multiprune.pruning.pruner import Pruner
from multiprune.pruning.schedule import Schedule
from multiprune.tasks.shared_batch import SharedBatch
from multiprune.tasks.task import Batch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle


class Pruning(pl.Callback):
    """Prunes any ``LightningModule`` with one optimizer, in any ``Trainer``.

    Args:
        pruner: what survives.
        schedule: when.
        every_n_steps: how often, in optimizer steps, the pruner ranks anew.
        encoder: dotted path of the submodule to prune; the whole module by default. Name it:
            otherwise linear layers of heads are pruned too.

    Tensors and the position in the schedule live in the module's state: Lightning's checkpoints
    hold them, and a resumed run continues bit for bit. With several ranks, all of them are checked
    to hold the same masks after every ranking. Training that ends before the schedule, as by early
    stopping, ends in an UnfinishedPruningError.
    """

    def __init__(
        self, pruner: Pruner, schedule: Schedule, *, every_n_steps: int = 10, encoder: str = ""
    ) -> None:
        if not isinstance(encoder, str):
            raise TypeError(
                "`encoder` must be the path of a submodule, as 'model.encoder', but is a "
                f"{type(encoder).__name__}."
            )
        check_is(Pruner, "Magnitude", pruner=pruner)
        check_is(Schedule, "CubicSchedule(start=0.1, stop=0.7)", schedule=schedule)
        check_number("every_n_steps", every_n_steps, at_least=1, whole=True)
        self.pruner, self.schedule = pruner, schedule
        self.every_n_steps, self.encoder = every_n_steps, encoder
        self._is_prepared = False
        # Known once the Trainer can tell the number of steps.
        self._gradual: GradualPruning | None = None
        self._handle: RemovableHandle | None = None
        self._has_news = True

    def prepare(self, module: nn.Module) -> None:
        """Insert into ``module`` what the pruner needs; does nothing the second time."""
        if not self._is_prepared:
            self.pruner.prepare(module, self._encoder_of(module))
            self.pruner.check_ready()
            self._is_prepared = True

    def _encoder_of(self, module: nn.Module) -> nn.Module:
        try:
            return module.get_submodule(self.encoder)
        except AttributeError:
            parts = ", ".join(name for name, _ in module.named_children())
            raise ValueError(
                f"`encoder` must be the path of a submodule of {type(module).__name__}, which has "
                f"{parts or 'none'}, but is {self.encoder!r}."
            ) from None

    @property
    def finished(self) -> bool:
        """Whether the schedule has come to its end, so that the model meets its budget."""
        return self._gradual is not None and self._gradual.finished

    @property
    def start_step(self) -> int:
        """After how many optimizer steps the model is dense for the last time."""
        assert self._gradual is not None
        return self.schedule.start_step(self._gradual.total_steps)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            if not isinstance(self.pruner, NoPruning):
                _refuse_averaging(trainer)
            self.prepare(pl_module)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if len(trainer.optimizers) != 1:
            raise ValueError(
                f"Pruning needs a module with one optimizer, but {type(pl_module).__name__} has "
                f"{len(trainer.optimizers)}."
            )
        total = trainer.estimated_stepping_batches
        if total == float("inf"):
            raise ValueError(
                "Set `max_steps` or `max_epochs` of the Trainer: pruning needs the number of steps."
            )
        self._gradual = GradualPruning(
            self.pruner, self.schedule, total_steps=int(total), every_n_steps=self.every_n_steps
        )

        def after_step(*_: Any) -> None:
            self._after_step(trainer)

        self._handle = trainer.optimizers[0].register_step_post_hook(after_step)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.pruner.forget_passes()  # as of a search for a learning rate or a batch size

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert self._gradual is not None
        self._gradual.tasks.update(_tasks_of(batch))

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        # Lightning runs backward inside `optimizer.step`, after the optimizer's own pre-hooks.
        assert self._gradual is not None
        self.pruner.check_passes()
        self._gradual.before_step(optimizer)

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert self._gradual is not None
        if self._gradual.pending:
            self._gradual.skip_step()
        if trainer.global_step >= self._gradual.total_steps and not self._gradual.finished:
            # Steps that a gradient scaler skipped do not count.
            self._gradual.finish(trainer.optimizers[0])
            self._has_ranked(trainer)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self._has_news and every and trainer.global_step % every == 0:
            pl_module.log_dict(self.densities())
            self._has_news = False

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._handle is not None:
            self._handle.remove()
        if not self.finished:
            raise self.pruner.unfinished()

    def densities(self) -> dict[str, float]:
        """Return kept / total of all parameters in scope (``density``), and of every mask."""
        layers = {
            f"density/{path}": int(mask.count_nonzero()) / mask.numel()
            for path, mask in self.pruner.masks().items()
        }
        return {"density": self.pruner.ledger().density} | layers

    def _after_step(self, trainer: pl.Trainer) -> None:
        assert self._gradual is not None
        if self._gradual.after_step(trainer.optimizers[0]):
            self._has_ranked(trainer)

    def _has_ranked(self, trainer: pl.Trainer) -> None:
        self._has_news = True
        if trainer.world_size > 1:
            self._check_ranks_agree(trainer)
        if self._gradual is not None and self._gradual.was_cut:
            _rebuild_reducer(trainer)

    def _check_ranks_agree(self, trainer: pl.Trainer) -> None:
        masks = self.pruner.masks()
        if not masks:
            return
        gathered = trainer.strategy.all_gather(mask_checksums(masks)).view(-1, len(masks))
        differs = (gathered != gathered[0]).any(0)
        if differs.any():
            layers = [path for path, one in zip(masks, differs.tolist(), strict=True) if one]
            raise RuntimeError(
                f"Masks differ between ranks after step {trainer.global_step}, in "
                f"{', '.join(layers)}."
            )


def _tasks_of(batch: Any) -> Iterable[str]:
    """Return whose loss is computed of a batch, as far as it says so."""
    if isinstance(batch, SharedBatch):
        return batch.labels
    return [batch.task] if isinstance(batch, Batch) else []


def _refuse_averaging(trainer: pl.Trainer) -> None:
    """Refuse Lightning's averages: they copy the module before it is pruned."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, (WeightAveraging, StochasticWeightAveraging)):
            raise ValueError(
                f"{type(callback).__name__} cannot average weights that Pruning prunes, as it "
                "copies the module at the start: leave it out, and have a callback make torch's "
                "AveragedModel once `pruning.finished` is true."
            )


def _rebuild_reducer(trainer: pl.Trainer) -> None:
    """Have DDP reduce the gradients of the parameters that took the place of larger ones."""
    strategy = trainer.strategy
    if isinstance(strategy, SingleDeviceStrategy):
        return
    if not isinstance(strategy, DDPStrategy):
        raise RuntimeError(
            f"Layers can be cut while a single device or DDP trains, but not with "
            f"{type(strategy).__name__}."
        )
    strategy.model = strategy.lightning_module
    strategy.configure_ddp()
