"""What heads begin as: those that lie beside the encoder, where they answer the same task."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from multiprune.models.heads import VocabularyHead
from multiprune.models.pretrained_head import begin_as_pretrained
from multiprune.models.shipped_heads import ShippedHeads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from multiprune.models.multitask import MultitaskModel
    from multiprune.tasks.task import Task

log = logging.getLogger(__name__)

#: What of a task's definition says what the outputs of its head mean.
_LABEL_SPACE = ("kind", "labels", "bounds")


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
            log.info("%s: the head begins %s.", name, "as pretrained" if found else "at random")
        elif shipped is not None and name in shipped.definitions and head.state_dict():
            _begin(head, name, tasks[name].definition, shipped)


def _begin(
    head: nn.Module, name: str, definition: Mapping[str, Any], shipped: ShippedHeads
) -> None:
    learned, run = shipped.definitions[name], shipped.file.parent
    for key in _LABEL_SPACE:
        if learned.get(key) != definition.get(key):
            log.info(
                "%s: the head begins at random, as the %s in %s are others: %s.",
                *(name, key, run, learned.get(key)),
            )
            return
    expected = head.state_dict()
    found = shipped.weights(name, list(expected))
    if found is None or any(found[key].shape != one.shape for key, one in expected.items()):
        raise ValueError(f"{shipped.file} must hold the head of {name}, but does not.")
    head.load_state_dict(found)
    log.info("%s: the head begins as that in %s.", name, run)
