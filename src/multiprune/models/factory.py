"""Build tasks and the multitask model for an encoder or an encoder-decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.models.beside import check_reads_beside
from multiprune.models.first_heads import begin_heads
from multiprune.models.multitask import MultitaskModel
from multiprune.models.text_to_text import TextToTextModel
from multiprune.tasks.text_to_text import worded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from multiprune.models.encoder import Encoder
    from multiprune.tasks.task import Task


def tasks_for(encoder: Encoder, tasks: Mapping[str, Task]) -> dict[str, Task]:
    """Return tasks as an encoder reads them, or, put in words, an encoder-decoder.

    Raises:
        ValueError: if a task cannot be put in words, or needs what tokenizer or encoder lack.
    """
    if not encoder.is_text_to_text:
        if any(one.reads_beside for one in tasks.values()):
            check_reads_beside(encoder.model)
        return {name: task.read_by(encoder.tokenizer) for name, task in tasks.items()}
    return {name: worded(name, task, encoder.tokenizer) for name, task in tasks.items()}


def multitask_model(encoder: Encoder, tasks: Mapping[str, Task]) -> MultitaskModel:
    """Return the model of several tasks that goes with an encoder or an encoder-decoder.

    Heads begin as those that lie beside the encoder.
    """
    kind = TextToTextModel if encoder.is_text_to_text else MultitaskModel
    model = kind(encoder.model, tasks, head_dropout=encoder.head_dropout)
    if encoder.source is not None:
        begin_heads(model, tasks, encoder.source)
    return model
