"""Load the teacher of a distillation, and check that its tasks match."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.export.checkpoint import model_folder
from multiprune.export.digests import SUFFIXES, sha256
from multiprune.export.loading import load
from multiprune.models.encoder import Encoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedTokenizerBase

    from multiprune.export.shipped import ShippedModel
    from multiprune.tasks.task import Task


@dataclass(frozen=True)
class Teacher:
    """A shipped model in evaluation mode and fp32, where it came from, and a digest of it."""

    model: ShippedModel
    folder: Path
    digest: str


def load_teachers(
    source: str | Mapping[str, str],
    *,
    tasks: Mapping[str, Task],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    trust_remote_code: bool = False,
) -> dict[str, Teacher]:
    """Load one teacher of all tasks, or one a task; return them by task.

    ``max_length`` is that of the texts that a teacher has to read.

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: if a task has no teacher, or one that answers something else, or for which the
            numbers of tokens mean something else.
    """
    paths = dict.fromkeys(tasks, source) if isinstance(source, str) else dict(source)
    if without := [name for name in tasks if name not in paths]:
        raise ValueError(
            f"`distillation.teacher` must name a teacher for each task, but has none for "
            f"{', '.join(without)}."
        )
    loaded = {
        path: _load(Path(path), trust_remote_code=trust_remote_code)
        for path in dict.fromkeys(paths[name] for name in tasks)
    }
    for teacher in loaded.values():
        _check_inputs(teacher, tokenizer, max_length)
    for name, task in tasks.items():
        _check_answers(loaded[paths[name]], name, task)
    return {name: loaded[paths[name]] for name in tasks}


def _load(path: Path, *, trust_remote_code: bool) -> Teacher:
    folder = model_folder(path.expanduser())
    model = load(folder, trust_remote_code=trust_remote_code)
    model.float().requires_grad_(requires_grad=False)
    # Tensors of a file lie anywhere in memory, and sums depend on it in their last bits.
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone()
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in sorted(folder.iterdir()):
        if file.suffix in SUFFIXES:
            digest.update(f"{file.name} {sha256(file)}".encode())
    return Teacher(model, folder, digest.hexdigest())


def _check_inputs(teacher: Teacher, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    known = teacher.model.tokenizer
    if (
        known.get_vocab() != tokenizer.get_vocab()
        or known.model_input_names != tokenizer.model_input_names
    ):
        raise ValueError(
            f"A teacher must have the vocabulary of the student, and take the same inputs, but "
            f"{teacher.folder} has {len(known):,} tokens and takes "
            f"{', '.join(known.model_input_names)}; the student has {len(tokenizer):,} and takes "
            f"{', '.join(tokenizer.model_input_names)}."
        )
    longest = Encoder(teacher.model.encoder, known).max_length
    if longest < max_length:
        raise ValueError(
            f"The teacher {teacher.folder} has only {longest} positions, but "
            f"`data.max_length` is {max_length}."
        )


def _check_answers(teacher: Teacher, name: str, task: Task) -> None:
    if name not in teacher.model.meaning:
        raise ValueError(
            f"The teacher {teacher.folder} was not trained on {name}, only on "
            f"{', '.join(teacher.model.meaning)}."
        )
    if found := task.output.difference(teacher.model.output(name)):
        raise ValueError(
            f"The teacher {teacher.folder} has other {found.key} for {name}, {found.theirs}, "
            f"than the student, {found.ours}."
        )
    read = teacher.model.meaning[name]["text"]
    if read != [*task.text]:
        raise ValueError(
            f"The teacher {teacher.folder} reads other columns for {name}, {read}, than the "
            f"student, {[*task.text]}."
        )
