"""Export a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from multiprune.export.card import Measured, write_card
from multiprune.export.checkpoint import (
    check_is_new,
    model_folder,
    save_encoder,
    save_heads,
    write_config,
)
from multiprune.export.dynamic import DynamicModel
from multiprune.export.exported_folder import exported_folder
from multiprune.export.loading import load, load_sizes
from multiprune.export.vocabulary import prune_vocabulary
from multiprune.runs.folder import has_results
from multiprune.runs.record import RunRecord
from multiprune.tasks.document import DocumentOfWords

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from multiprune.export.shipped import ShippedModel

FORMATS = ("transformers", "onnx")
STORAGES = ("dense", "bitmask")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """How a model is written.

    Attributes:
        format: ``transformers`` (safetensors and JSON) or ``onnx``.
        storage: ``dense``, or ``bitmask``, which stores no zeros.
        dtype: of the weights, ``fp32``, ``fp16`` or ``bf16``; as they are by default.
    """

    format: str = "transformers"
    storage: str = "dense"
    dtype: str | None = None

    def __post_init__(self) -> None:
        choices = {"format": FORMATS, "storage": STORAGES, "dtype": (None, *DTYPES)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                known = ", ".join(map(str, filter(None, allowed)))
                raise ValueError(
                    f"`{name}` must be one of {known}, but is {getattr(self, name)!r}."
                )
        if self.format == "onnx" and (self.storage != "dense" or self.dtype not in (None, "fp32")):
            raise ValueError(
                "ONNX export supports only `storage` dense and `dtype` fp32, but `storage` "
                f"is {self.storage} and `dtype` is {self.dtype}."
            )


def check_answers_by_head(model: ShippedModel) -> None:
    """Raise a ValueError if a task is answered with tokens, whose vocabulary must stay whole."""
    if named := [task for task in model.meaning if model.output(task).over_vocabulary]:
        raise ValueError(
            f"The vocabulary cannot be reduced, because {', '.join(named)} predicts tokens: "
            "leave out `--vocabulary`."
        )


def export_model(
    source: Path,
    out: Path,
    settings: ExportSettings,
    *,
    corpus: Iterable[str | Sequence[str]] | None = None,
    density: float | None = None,
) -> None:
    """Write the model of ``source``, a run or an exported folder, to the new folder ``out``.

    With a ``corpus``, the vocabulary shrinks to the tokens that its texts use. With a ``density``,
    it is that size of a model of many sizes, cut for good.

    Raises:
        FileExistsError: if ``out`` exists.
        FileNotFoundError: if there is no model, or, with a ``density``, none of many sizes.
        ValueError: if a model of many sizes has no such size.
    """
    check_is_new(out)
    if density is None:
        measured, model = _measured(model_folder(source).parent), load(source)
    else:  # what was measured is the smallest size
        measured, model = None, load_sizes(source).cut(density)
    if isinstance(model, DynamicModel):
        raise ValueError(f"{source} is a dynamic model: choose a size with `--density`.")
    if corpus is not None:
        check_answers_by_head(model)
        if any(model.output(task).reads_words for task in model.meaning):
            texts = list(corpus)
            corpus = [*texts, *(DocumentOfWords.of(one).words for one in texts)]
        model.tokenizer = prune_vocabulary(model.encoder, model.tokenizer, corpus)
    if settings.dtype is not None:
        model.to(DTYPES[settings.dtype])
    lengths = {task: {"max_length": model.max_length(task)} for task in model.meaning}
    model.meaning = {task: {**one, **lengths[task]} for task, one in model.meaning.items()}
    with exported_folder(out) as folder:
        if settings.format == "onnx":
            # Imported late: what it needs is optional.
            from multiprune.export.onnx import export_onnx

            export_onnx(model, folder)
            write_config(folder, model.encoder, model.encoder, with_code=False)
        else:
            save_encoder(folder, model.encoder, bitmask=settings.storage == "bitmask")
        save_heads(folder, model.heads, model.meaning)
        model.tokenizer.save_pretrained(folder)
        write_card(folder, model, measured)


def _measured(run: Path) -> Measured | None:
    return Measured.from_record(RunRecord.read(run)) if has_results(run) else None
