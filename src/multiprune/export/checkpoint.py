"""The folder that is shipped: encoder, heads, tokenizer, in safetensors and JSON."""

from __future__ import annotations

import json
import shutil
import uuid
from typing import TYPE_CHECKING

from safetensors.torch import save_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from multiprune.models.multitask import MultitaskModel
    from multiprune.tasks.task import Task


def save_model(
    folder: Path,
    model: MultitaskModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Mapping[str, Task],
) -> None:
    """Write a finalized model to ``folder``, all of it or nothing.

    ``config.json``, ``model.safetensors`` and the tokenizer are the encoder's, and load with plain
    ``AutoModel.from_pretrained(folder)``; ``heads.safetensors`` holds ``<task>.output.weight``, of
    shape (outputs, hidden), and ``.bias``, and ``heads.json`` says what their outputs mean (of a
    number, -1 and 1 stand for its ``bounds``).
    """
    beside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    beside.mkdir(parents=True)
    try:
        model.encoder.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        heads = {key: tensor.contiguous() for key, tensor in model.heads.state_dict().items()}
        save_file(heads, beside / "heads.safetensors")
        meaning = {name: dict(task.definition) for name, task in tasks.items()}
        (beside / "heads.json").write_text(json.dumps(meaning, indent=2) + "\n")
        # safetensors writes for the owner alone; what is shipped is as open as its surroundings.
        for file in beside.iterdir():
            file.chmod(beside.stat().st_mode & 0o666)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
