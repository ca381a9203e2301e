"""From a classifier of the hub, or a folder, to a smaller one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.data.batches import EncodedTask
from multiprune.data.cache import default_cache_folder, encoded_rows
from multiprune.data.source import FileSource
from multiprune.export.checkpoint import check_is_new
from multiprune.export.classifier import (
    ShippedClassifier,
    class_names,
    load_classifier,
    usable_positions,
)
from multiprune.metrics import Accuracy
from multiprune.specialize.specialist import check_can_be_cut
from multiprune.specialize.specialize import make
from multiprune.tasks.classification import Classification

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from multiprune.specialize.specialize import Manner, Outcome


@dataclass(frozen=True, kw_only=True)
class ClassifierRequest:
    """What is asked for.

    Attributes:
        model: its name on the hub, or a folder.
        data: file that examples are drawn from, as ``FileSource`` reads it.
        validation: file of validation data; None to measure no scores.
        text: the columns that are read, one or two.
        label: the column of the classes, by number or name.
        out: folder that is written.
        manner: in which way.
    """

    model: str
    data: Path
    validation: Path | None
    text: Sequence[str]
    label: str
    out: Path
    manner: Manner


def specialize_classifier(request: ClassifierRequest) -> Outcome:
    """Prune a classifier for its data, write it, and say what came of it.

    Raises:
        ValueError: if the model is no such classifier, or what is asked for cannot be.
        FileExistsError: if ``out`` exists.
        FileNotFoundError: if a file does not exist.
    """
    check_is_new(request.out)
    classifier, tokenizer = load_classifier(request.model)
    name = Path(request.model).expanduser().resolve().name
    encoded = _encoded(request, name, classifier, tokenizer)
    model = ShippedClassifier(classifier, name, encoded.task.description, tokenizer).eval()
    check_can_be_cut(model)
    of = {"model": request.model, "data": str(request.data)}
    return make(model, encoded, request.manner, folder=request.out, of=of)


def _encoded(
    request: ClassifierRequest,
    name: str,
    classifier: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> EncodedTask:
    files = {"train": request.data, "validation": request.validation}
    task = Classification(
        text=request.text,
        label=request.label,
        labels=class_names(classifier),
        metrics={"accuracy": Accuracy()},
        source=FileSource(files={split: file for split, file in files.items() if file}),
    )
    splits, truncated = {}, 0
    for split in files:
        if (rows := task.source.load(split, mirror=None, columns=task.columns)) is not None:
            splits[split], cut = encoded_rows(
                task,
                rows,
                tokenizer,
                max_length=usable_positions(classifier, tokenizer),
                folder=default_cache_folder(),
            )
            truncated += cut
    return EncodedTask(
        name=name,
        task=task,
        splits=splits,
        truncated=truncated,
        padding_token=tokenizer.pad_token_id,
    )
