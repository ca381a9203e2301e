"""Sandwich training of a dynamic model: smaller sizes learn from the largest."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import override

from multiprune.training.objective import Objective

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pytorch_lightning as pl
    from torch import Tensor
    from transformers import PreTrainedModel

    from multiprune.models.encoder import Encoder
    from multiprune.models.multitask import MultitaskModel
    from multiprune.pruning.sizes import Parts
    from multiprune.tasks.shared_batch import SharedBatch
    from multiprune.tasks.task import Task
    from multiprune.training.objective import Losses
    from multiprune.training.pruning import Pruning


def trained_with(objective: Objective, pruning: Pruning) -> Objective:
    """Return what a model is trained on while it is pruned: of many sizes, all of them."""
    objective.watch(pruning)
    parts = pruning.pruner.trained_parts()
    return objective if parts is None else Sandwich(objective, parts)


class Sandwich(Objective):
    """The loss of the whole encoder, and that of its parts, which are distilled from it in place.

    The sandwich rule and inplace distillation of Yu & Huang (2019), "Universally Slimmable
    Networks", section 3: each step trains the largest, the smallest and sampled sizes; the largest
    learns from what ``inner`` says (labels, or another teacher), the others from its answers, of
    which no gradient is taken. Losses are summed. In one step all processes train the same sizes.
    """

    def __init__(self, inner: Objective, parts: Parts) -> None:
        self.inner, self.parts = inner, parts
        self._trainer: pl.Trainer | None = None

    @override
    def prepare(self, encoder: Encoder, tasks: Mapping[str, Task], max_length: int) -> None:
        self.inner.prepare(encoder, tasks, max_length)

    @override
    def start(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer
        self.inner.start(trainer)

    @override
    def before_batch(self, module: pl.LightningModule) -> None:
        self.inner.before_batch(module)

    @override
    def losses_by_task(
        self, model: MultitaskModel, tasks: Mapping[str, Task], batch: SharedBatch
    ) -> dict[str, Losses]:
        parts = self.parts.parts_of_step(self._step)
        if not parts:
            return self.inner.losses_by_task(model, tasks, batch)
        with shared_embeddings(model.encoder):
            whole = self.inner.losses_by_task(model, tasks, batch)
            of_parts = [self._losses_of_part(part, model, tasks, batch, whole) for part in parts]
        found = {}
        for name, one in whole.items():
            losses = [of_part[name] for of_part in of_parts]
            terms = dict(one.terms) | {"smallest": losses[0]}
            found[name] = replace(one, total=one.total + torch.stack(losses).sum(), terms=terms)
        return found

    def _losses_of_part(
        self,
        part: int,
        model: MultitaskModel,
        tasks: Mapping[str, Task],
        batch: SharedBatch,
        whole: Mapping[str, Losses],
    ) -> dict[str, Tensor]:
        with self.parts.part(part):
            by_task = model.logits_by_task(batch)
        found = {}
        for name, logits in by_task.items():
            task, labels = tasks[name], batch.labels[name].labels
            expected = whole[name].logits.detach()
            loss = task.distillation_loss(logits, expected, labels, self.parts.temperature)
            if weight := self.parts.label_weight:
                loss = (1 - weight) * loss + weight * task.loss(logits, labels)
            found[name] = loss
        return found

    @property
    def _step(self) -> int:
        return 0 if self._trainer is None else self._trainer.global_step


@contextmanager
def shared_embeddings(encoder: PreTrainedModel) -> Iterator[None]:
    """Look the words of a batch up once, however often the encoder reads it.

    The gradient of a table of words is as large as the table, which in multilingual encoders is
    most of the model: it is computed once for all passes.
    """
    found: list[tuple[Tensor, Tensor]] = []

    def reuse(_: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for tokens, embeddings in found:
            if tokens is args[0]:
                return embeddings
        found.append((args[0], output))
        return output

    handle = encoder.get_input_embeddings().register_forward_hook(reuse)
    try:
        yield
    finally:
        handle.remove()
