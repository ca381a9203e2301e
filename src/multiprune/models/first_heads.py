"""Initialize heads: from those saved with the encoder, where they fit the task."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from multiprune.models.pretrained_head import begin_as_pretrained
from multiprune.models.shipped_heads import ShippedHeads
from multiprune.tasks.outputs.vocabulary import VocabularyHead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from multiprune.models.multitask import MultitaskModel
    from multiprune.tasks.outputs.output import Output
    from multiprune.tasks.task import Task

log = logging.getLogger(__name__)


def begin_heads(model: MultitaskModel, tasks: Mapping[str, Task], source: str) -> None:
    """Give heads the weights that lie beside the encoder in ``source``, and say so.

    A head over the vocabulary begins as it was pretrained, or as a run has left it; others as a run
    has left the head of a task of the same name and label space.

    Raises:
        ValueError: if the heads in ``source`` are damaged.
    """
    shipped = ShippedHeads.beside(source)
    for name, head in model.heads.items():
        if isinstance(head, VocabularyHead):
            found = begin_as_pretrained(head, source, name)
            log.info(
                "%s: head initialized %s.",
                name,
                "from the pretrained head" if found else "at random",
            )
        elif shipped is not None and name in shipped.outputs and head.state_dict():
            _begin(head, name, tasks[name].output, shipped)


def _begin(head: nn.Module, name: str, output: Output, shipped: ShippedHeads) -> None:
    run = shipped.file.parent
    if other := output.difference(shipped.outputs[name]):
        log.info(
            "%s: head initialized at random, as the %s in %s differ: %s.",
            *(name, other.key, run, other.theirs),
        )
        return
    expected = head.state_dict()
    found = shipped.weights(name, list(expected))
    if found is None or any(found[key].shape != one.shape for key, one in expected.items()):
        raise ValueError(f"{shipped.file} has no head of {name}.")
    head.load_state_dict(found)
    log.info("%s: head loaded from %s.", name, run)
