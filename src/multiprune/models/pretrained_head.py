"""The pretrained language modelling head of an encoder, where it is saved with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.models.shipped_heads import ShippedHeads, read

if TYPE_CHECKING:
    from torch import Tensor

    from multiprune.tasks.outputs.vocabulary import VocabularyHead

_OURS = ("dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias")

#: What architectures call the same weights, in the order of ``_OURS``.
_THEIRS = (
    # BERT, as it is saved today and as its published files were.
    (
        "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.transform.LayerNorm.bias",
        "cls.predictions.bias",
    ),
    (
        "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.LayerNorm.gamma",
        "cls.predictions.transform.LayerNorm.beta",
        "cls.predictions.bias",
    ),
    # RoBERTa and XLM-R.
    (
        "lm_head.dense.weight",
        "lm_head.dense.bias",
        "lm_head.layer_norm.weight",
        "lm_head.layer_norm.bias",
        "lm_head.bias",
    ),
    # DistilBERT.
    (
        "vocab_transform.weight",
        "vocab_transform.bias",
        "vocab_layer_norm.weight",
        "vocab_layer_norm.bias",
        "vocab_projector.bias",
    ),
    # ALBERT.
    (
        "predictions.dense.weight",
        "predictions.dense.bias",
        "predictions.LayerNorm.weight",
        "predictions.LayerNorm.bias",
        "predictions.bias",
    ),
)


def begin_as_pretrained(head: VocabularyHead, source: str, task: str) -> bool:
    """Give a head the weights that lie beside the encoder in ``source``; return if there are any.

    ``source`` is a name on the hub or a folder, of a checkpoint of transformers or of a run. Of the
    heads of a run, that of the same ``task`` is taken, or else the first.
    """
    found = _of_run(source, task) or _of_checkpoint(source)
    expected = {name: one.shape for name, one in head.state_dict().items()}
    if found is None or {name: one.shape for name, one in found.items()} != expected:
        return False
    head.load_state_dict(found)
    return True


def _of_run(source: str, task: str) -> dict[str, Tensor] | None:
    """Return the head over the vocabulary that a run has shipped for a task, or else its first."""
    shipped = ShippedHeads.beside(source)
    if shipped is None:
        return None
    masked = [name for name, one in shipped.outputs.items() if one.over_vocabulary]
    if not masked:
        return None
    return shipped.weights(task if task in masked else masked[0], _OURS)


def _of_checkpoint(source: str) -> dict[str, Tensor] | None:
    from transformers.utils.hub import cached_file

    file = cached_file(
        source,
        "model.safetensors",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if file is None:
        return None
    layouts = (dict(zip(_OURS, theirs, strict=True)) for theirs in _THEIRS)
    return next(filter(None, (read(Path(file), names) for names in layouts)), None)
