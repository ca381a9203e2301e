"""A callback that checkpoints and ends a run on SIGTERM and Ctrl-C."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.callbacks import Checkpoint
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytorch_lightning as pl

    from multiprune.training.checkpoints import Last

log = logging.getLogger(__name__)


class Stop(Checkpoint):
    """Has ``last`` save the step that is being done, and ends all ranks by SystemExit after it.

    A signal is only noted; all ranks then agree, once an optimizer step and a batch of validation,
    whether one of them was asked to stop. Who cannot wait gives Ctrl-C twice.

    Lightning's own handler of SIGTERM takes no part: in the midst of a step, it would call a
    collective of all ranks in one of them. Outside of training, signals do what they did before.
    """

    def __init__(self, last: Last) -> None:
        self.last = last
        self._asked_by: int | None = None
        self._is_agreed = False
        self._handlers: dict[int, Callable[..., Any] | int | None] = {}
        # Of each task, the batches that all ranks have.
        self._shared_batches: list[int] = []

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        connector = trainer._signal_connector
        connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            # A launcher that passes Ctrl-C on has its jobs ignore it.
            if signal.getsignal(number) != signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._note)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Not at the end of the last batch: what is logged of it came after that.
        if self._is_agreed:
            self._end(trainer)

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self.last.has_stepped(trainer) and self._agree(trainer):
            self.last.keep(trainer)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not _validates_while_training(trainer):
            return
        if self._is_agreed:
            self._end(trainer)
        batches = torch.tensor(trainer.num_val_batches, device=pl_module.device)
        shared = trainer.strategy.reduce(batches, reduce_op="min")
        assert isinstance(shared, torch.Tensor)
        self._shared_batches = shared.tolist()

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if (
            _validates_while_training(trainer)
            and batch_idx < self._shared_batches[dataloader_idx]
            and self._agree(trainer)
        ):
            self.last.save(trainer)
            self._end(trainer)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore_handlers()
        if self._agree(trainer):
            self.last.save(trainer)
            self._end(trainer)

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._restore_handlers()
        launcher = trainer.strategy.launcher
        if isinstance(exception, SystemExit) and not self._is_agreed and launcher is not None:
            # Further ranks would wait for this one.
            launcher.kill(signal.SIGKILL)

    def _note(self, number: int, _: object) -> None:
        if number == self._asked_by == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked_by = number

    def _agree(self, trainer: pl.Trainer) -> bool:
        if not self._is_agreed:
            is_asked = self._asked_by is not None
            self._is_agreed = trainer.strategy.reduce_boolean_decision(is_asked, all=False)
        return self._is_agreed

    def _end(self, trainer: pl.Trainer) -> None:
        number = signal.SIGTERM if self._asked_by is None else self._asked_by
        if not trainer.is_global_zero:
            # Once another rank ends with an error, Lightning kills the first one.
            raise SystemExit(0)
        name = signal.Signals(number).name
        log.warning(
            "Stopped by %s at step %d; start the same command again to resume.",
            name,
            trainer.global_step,
        )
        raise SystemExit(128 + number)

    def _restore_handlers(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())


def _validates_while_training(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking
