"""Extract a smaller classifier from one of the hub or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.arguments import check_several
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

    from multiprune.specialize.recipe import Recipe
    from multiprune.specialize.specialize import Outcome


def specialize_classifier(
    recipe: Recipe,
    *,
    model: str,
    data: Path,
    validation: Path | None,
    text: Sequence[str],
    label: str,
    out: Path,
) -> Outcome:
    """Prune a classifier for its data, write it, and say what came of it.

    Args:
        recipe: how it is cut.
        model: its name on the hub, or a folder.
        data: file that examples are drawn from, as ``FileSource`` reads it.
        validation: file of validation data; None to measure no scores.
        text: the columns that are read, one or two.
        label: the column of the classes, by number or name.
        out: folder that is written.

    Raises:
        ValueError: if the model is no such classifier, or what is asked for cannot be.
        FileExistsError: if ``out`` exists.
        FileNotFoundError: if a file does not exist.
    """
    check_several("text", text)
    check_is_new(out)
    classifier, tokenizer = load_classifier(model)
    name = Path(model).expanduser().resolve().name
    files = {"train": data, "validation": validation}
    task = Classification(
        text=[str(one) for one in text],
        label=str(label),
        labels=class_names(classifier),
        metrics={"accuracy": Accuracy()},
        source=FileSource(files={split: file for split, file in files.items() if file}),
    )
    encoded = _encoded(name, task, classifier, tokenizer)
    shipped = ShippedClassifier(classifier, name, task.description, tokenizer).eval()
    check_can_be_cut(shipped)
    return make(shipped, encoded, recipe, folder=out, of={"model": model, "data": str(data)})


def _encoded(
    name: str,
    task: Classification,
    classifier: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> EncodedTask:
    splits, truncated = {}, 0
    for split in ("train", "validation"):
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
