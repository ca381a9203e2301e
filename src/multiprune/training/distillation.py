"""Distillation from a teacher's logits and hidden states."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.data.datamodule import MultitaskDataModule
from multiprune.models.beside import states_of
from multiprune.models.heads import logits_at
from multiprune.models.hidden_states import recorded_states
from multiprune.models.structure import architecture_of
from multiprune.pruning.layer_state import hidden_state_in
from multiprune.training.objective import Losses, Objective
from multiprune.training.teacher import load_teachers
from multiprune.training.teacher_logits import teacher_logits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytorch_lightning as pl
    from torch import Tensor

    from multiprune.models.encoder import Encoder
    from multiprune.models.hidden_states import LayerStates
    from multiprune.models.multitask import MultitaskModel
    from multiprune.tasks.shared_batch import SharedBatch
    from multiprune.tasks.task import Batch, Task
    from multiprune.training.teacher import Teacher
    from multiprune.training.teacher_logits import TeacherLogits


class LogitDistillation(Objective):
    """The logits of a teacher: ``(1 - weight) * loss + weight * distillation``.

    The sum is that of Sanh et al. (2020); the second term is the task's ``distillation_loss``.

    The teacher runs once over all training examples before the first step, in fp32 and without
    dropout; its logits are kept in the cache of the data. Where examples are corrupted anew each
    time, it reads what the student reads, in every step.

    Args:
        teacher: a finished run or an exported folder; or one a task, by the task's name.
        temperature: of the softened distributions.
        weight: of the teacher, in (0, 1]; the labels have the rest.
    """

    def __init__(
        self, *, teacher: str | Mapping[str, str], temperature: float, weight: float
    ) -> None:
        check_number("temperature", temperature, above=0)
        check_number("weight", weight, above=0, at_most=1)
        self.teacher, self.temperature, self.weight = teacher, temperature, weight
        self.teachers: dict[str, Teacher] = {}
        self.logits: dict[str, TeacherLogits] = {}

    @override
    def prepare(self, encoder: Encoder, tasks: Mapping[str, Task], max_length: int) -> None:
        self.teachers = load_teachers(
            self.teacher,
            tasks=tasks,
            tokenizer=encoder.tokenizer,
            max_length=max_length,
            trust_remote_code=encoder.trust_remote_code,
        )

    @override
    def start(self, trainer: pl.Trainer) -> None:
        # The others read what the first rank has written.
        if trainer.is_global_zero:
            self._find_logits(trainer)
        trainer.strategy.barrier("teacher_logits")
        if not trainer.is_global_zero:
            self._find_logits(trainer)

    @override
    def losses_by_task(
        self, model: MultitaskModel, tasks: Mapping[str, Task], batch: SharedBatch
    ) -> dict[str, Losses]:
        batches, found = batch.batches, {}
        for name, logits in model.logits_by_task(batch).items():
            loss = tasks[name].loss(logits, batches[name].labels)
            imitation = self.imitation(tasks[name], batches[name], logits)
            total = (1 - self.weight) * loss + self.weight * imitation
            found[name] = Losses(logits, total, {"loss": loss, "distillation": imitation})
        return found

    def imitation(
        self, task: Task, batch: Batch, logits: Tensor, states: Tensor | None = None
    ) -> Tensor:
        """Return how far logits are from the teacher's, whose ``states`` may be known already."""
        if not batch.rows:
            raise ValueError(
                f"A batch of {batch.task} has no row numbers, which distillation needs."
            )
        expected = self._expected(batch, states).to(logits.device, non_blocking=True)
        return task.distillation_loss(logits, expected, batch.labels, self.temperature)

    @torch.no_grad()
    def _expected(self, batch: Batch, states: Tensor | None) -> Tensor:
        if batch.task in self.logits:
            return self.logits[batch.task].of(batch.rows)
        teacher = self.teachers[batch.task].model
        if states is None:
            states = states_of(teacher.encoder, batch.inputs)
        head = teacher.heads[batch.task]
        return logits_at(states, teacher.encoder, head, batch.inputs, batch.labels)

    def _find_logits(self, trainer: pl.Trainer) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, MultitaskDataModule):
            raise TypeError(
                f"Distillation needs a MultitaskDataModule, but trains on a {type(data).__name__}."
            )
        self.logits = {
            name: teacher_logits(
                teacher,
                data.encoded[name],
                folder=data.cache,
                device=trainer.strategy.root_device,
            )
            for name, teacher in self.teachers.items()
            if not data.tasks[name].is_corrupted
        }
        for name, teacher in self.teachers.items():
            if name not in self.logits:
                teacher.model.to(trainer.strategy.root_device)


class HiddenDistillation(LogitDistillation):
    """Logits and hidden states: ``distillation = (1 - h) * logits + h * hidden states``.

    The weighting ``h = hidden_weight`` is CoFi's (Xia et al. 2022, section 3.2), with
    ``layer_pairs`` in place of its search for the nearest layers, and no projection: student and
    teacher have the same hidden size, and are compared at the hidden dimensions that the student
    keeps while it is pruned. Hidden states are too large to be kept, so the teacher runs
    beside the student in every step, in the precision of the student. ``relative`` divides the
    error of each layer by the square of the teacher's states, as SquareHead does.
    """

    def __init__(
        self,
        *,
        teacher: str | Mapping[str, str],
        temperature: float,
        weight: float,
        hidden_weight: float,
        relative: bool = False,
    ) -> None:
        super().__init__(teacher=teacher, temperature=temperature, weight=weight)
        check_number("hidden_weight", hidden_weight, above=0, at_most=1)
        self.hidden_weight, self.relative = hidden_weight, relative

    @override
    def prepare(self, encoder: Encoder, tasks: Mapping[str, Task], max_length: int) -> None:
        super().prepare(encoder, tasks, max_length)
        architecture_of(encoder.model)
        size = encoder.model.config.hidden_size
        for teacher in self.teachers.values():
            architecture_of(teacher.model.encoder)
            found = teacher.model.encoder.config.hidden_size
            if found != size:
                raise ValueError(
                    f"A teacher of hidden states must have the student's hidden size, {size}, but "
                    f"{teacher.folder} has {found}."
                )

    @override
    def start(self, trainer: pl.Trainer) -> None:
        super().start(trainer)
        for teacher in self.teachers.values():
            teacher.model.to(trainer.strategy.root_device)

    @override
    def losses_by_task(
        self, model: MultitaskModel, tasks: Mapping[str, Task], batch: SharedBatch
    ) -> dict[str, Losses]:
        with recorded_states(model.encoder) as recorded:
            by_task = model.logits_by_task(batch)
        batches, read = batch.batches, {}
        found = {}
        hidden_state = hidden_state_in(model.encoder)

        def read_of(layers: Sequence[LayerStates], task: str) -> list[LayerStates]:
            kept = layers
            if hidden_state is not None:
                kept = [replace(one, states=hidden_state.kept_of(one.states)) for one in layers]
            return [replace(one, states=batch.at(task, one.states)) for one in kept]

        for name, logits in by_task.items():
            teacher = self.teachers[name].model.encoder
            if id(teacher) not in read:
                with recorded_states(teacher) as expected, torch.no_grad():
                    read[id(teacher)] = (states_of(teacher, batch.inputs), expected)
            states, expected = read[id(teacher)]
            loss = tasks[name].loss(logits, batches[name].labels)
            imitation = self.imitation(tasks[name], batches[name], logits, batch.at(name, states))
            hidden = hidden_state_loss(
                read_of(recorded, name),
                read_of(expected, name),
                batches[name].inputs["attention_mask"],
                relative=self.relative,
            )
            distilled = (1 - self.hidden_weight) * imitation + self.hidden_weight * hidden
            total = (1 - self.weight) * loss + self.weight * distilled
            terms = {"loss": loss, "distillation": imitation, "hidden": hidden}
            found[name] = Losses(logits, total, terms)
        return found


def hidden_state_loss(
    student: Sequence[LayerStates],
    teacher: Sequence[LayerStates],
    attention_mask: Tensor,
    *,
    relative: bool = False,
) -> Tensor:
    """Return the squared error of hidden states, a mean over pairs of layers, tokens and entries.

    With ``relative``, that of a layer is divided by the mean square of the teacher's states, as in
    SquareHead (Kurtic et al. 2023, "Sparse Fine-tuning for Inference Acceleration of Large Language
    Models", which has the sum over layers). Tokens of padding do not count; it is 0 where there are
    no others.
    """
    pairs = layer_pairs([one.is_dropped for one in student], len(teacher))
    losses = []
    for here, there in pairs:
        expected = teacher[there].states.float()
        error = _mean_square(student[here].states.float() - expected, attention_mask)
        if relative:
            error = error / _mean_square(expected, attention_mask).clamp(min=1e-12)
        losses.append(error)
    return torch.stack(losses).mean()


def _mean_square(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the mean square over tokens and entries."""
    by_token = states.square().mean(-1)
    return (by_token * attention_mask).sum() / attention_mask.sum().clamp(min=1)


def layer_pairs(student_is_dropped: Sequence[bool], teacher_depth: int) -> list[tuple[int, int]]:
    """Return which layers, numbered from 0, of student and teacher are compared.

    The ``m``-th of ``M`` layers, from 1, is compared with the ``ceil(m N / M)``-th of ``N``: evenly
    spaced, the last with the last (the uniform strategy of TinyBERT, Jiao et al. 2020), and each
    with its like where the depths are equal. A layer that was dropped keeps its number, so that the
    others keep their partners, and has none itself, unless it is the last: its states are what the
    heads read.
    """
    depth = len(student_is_dropped)
    return [
        (number - 1, -(-number * teacher_depth // depth) - 1)
        for number, is_dropped in enumerate(student_is_dropped, start=1)
        if not is_dropped or number == depth
    ]
