"""Self-distillation: the model before pruning teaches the pruned one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from typing_extensions import override

from multiprune.export.checkpoint import save_model
from multiprune.models.shipped_heads import ShippedHeads
from multiprune.models.structure import architecture_of
from multiprune.runs.folder import DENSE, RunFolder
from multiprune.training.distillation import HiddenDistillation
from multiprune.training.module import ResumeError
from multiprune.training.objective import PlainLoss

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytorch_lightning as pl

    from multiprune.models.encoder import Encoder
    from multiprune.models.multitask import MultitaskModel
    from multiprune.pruning.pruner import Pruner
    from multiprune.tasks.shared_batch import SharedBatch
    from multiprune.tasks.task import Task
    from multiprune.training.objective import Losses
    from multiprune.training.pruning import Pruning


class SelfDistillation(HiddenDistillation):
    """Labels alone while the model is dense; then the model as it was at the start of the schedule.

    That is written to ``dense/`` in the folder of the run, and read from there by a run that goes
    on. A model that does not answer the tasks yet teaches nothing: let the schedule start once it
    does, or begin with the encoder and heads of a run.
    """

    def __init__(
        self, *, temperature: float, weight: float, hidden_weight: float, relative: bool = True
    ) -> None:
        super().__init__(
            teacher=DENSE,
            temperature=temperature,
            weight=weight,
            hidden_weight=hidden_weight,
            relative=relative,
        )

    @override
    def watch(self, pruning: Pruning) -> None:
        self._pruning = pruning

    @override
    def prepare(self, encoder: Encoder, tasks: Mapping[str, Task], max_length: int) -> None:
        architecture_of(encoder.model)
        if self._pruning.schedule.start == 0:
            check_has_learned(encoder, tasks)
        self._learned = encoder, tasks, max_length

    @override
    def start(self, trainer: pl.Trainer) -> None:
        pass  # a teacher of hidden states runs in every step: its logits need not be kept

    @override
    def before_batch(self, module: pl.LightningModule) -> None:
        trainer, start = module.trainer, self._pruning.start_step
        if self.teachers or trainer.global_step < start:
            return
        folder = Path(trainer.default_root_dir) / DENSE
        if trainer.global_step == start:
            if trainer.is_global_zero:
                self._write(folder, dense_copy(module, self._pruning.pruner))
            trainer.strategy.barrier(DENSE)
        elif not folder.is_dir():
            raise ResumeError(
                f"The teacher in {folder}, the model before pruning, is missing: restore it, "
                "or start a new run."
            )
        self.teacher = str(folder)
        super().prepare(*self._learned)
        for teacher in self.teachers.values():
            teacher.model.to(trainer.strategy.root_device)

    @override
    def losses_by_task(
        self, model: MultitaskModel, tasks: Mapping[str, Task], batch: SharedBatch
    ) -> dict[str, Losses]:
        if not self.teachers:
            return PlainLoss().losses_by_task(model, tasks, batch)
        return super().losses_by_task(model, tasks, batch)

    def _write(self, folder: Path, model: MultitaskModel) -> None:
        encoder, tasks, max_length = self._learned
        claim = RunFolder(folder.parent).claim(DENSE)
        save_model(folder, model, encoder.tokenizer, tasks, max_length, claim=claim)


def check_has_learned(encoder: Encoder, tasks: Mapping[str, Task]) -> None:
    """Raise a ValueError unless the encoder comes with what answers the tasks."""
    shipped = None if encoder.source is None else ShippedHeads.beside(encoder.source)
    known = {} if shipped is None else shipped.outputs
    if new := [name for name, task in tasks.items() if task.label_columns and name not in known]:
        raise ValueError(
            "Self-distillation with `schedule.start` 0 has an untrained teacher for "
            f"{', '.join(new)}: start later, or begin with the encoder of a finished run."
        )


def dense_copy(module: pl.LightningModule, pruner: Pruner) -> MultitaskModel:
    """Return the model within ``module`` as it stands, without what its pruner has put into it."""
    # The pruner may know the module, which knows the Trainer and all that it holds.
    stand_in = nn.Module()
    copied: tuple[MultitaskModel, Pruner]
    copied = copy.deepcopy((module.model, pruner), {id(module): stand_in})  # type: ignore[assignment]
    stand_in.model, its_pruner = copied
    its_pruner.leave()
    return copied[0]
