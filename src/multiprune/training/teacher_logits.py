"""Cache a teacher's logits of all training examples on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from multiprune.runs.atomic import atomic_file
from multiprune.tasks.rows import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from multiprune.data.batches import EncodedTask
    from multiprune.training.teacher import Teacher

log = logging.getLogger(__name__)

# Part of every key: raise it when what is kept changes its meaning.
_FORMAT = 1
_BATCH_SIZE = 64


@dataclass(frozen=True)
class TeacherLogits:
    """Logits of shape (answers, outputs) in fp32; example ``n`` has those of a slice.

    Attributes:
        values: of all answers, one a token or one an example.
        starts: for each example where its answers start, and where the last ones end.
        per_token: whether an example has an answer for each token.
    """

    values: Tensor
    starts: Tensor
    per_token: bool

    def of(self, rows: Sequence[int]) -> Tensor:
        """Return the logits of examples, padded as their batch is."""
        if not self.per_token:
            return self.values[list(rows)]
        slices = [self.values[self.starts[row] : self.starts[row + 1]] for row in rows]
        return pad_sequence(slices, batch_first=True)


def teacher_logits(
    teacher: Teacher, encoded: EncodedTask, *, folder: Path, device: torch.device
) -> TeacherLogits:
    """Return a teacher's logits of a task's training examples; compute what is not there yet.

    What is computed is kept below ``folder``: other runs with the same teacher and the same
    examples read it, and so does a run that is resumed. It must, to repeat itself bit for bit: the
    last bits of what is computed again depend on where tensors lie in memory.
    """
    file = folder / "teacher" / f"{_key(teacher, encoded)}.safetensors"
    stored = _read(file) if file.is_file() else None
    if stored is None:
        lengths = _lengths(encoded)
        log.info("%s: computing the logits of %s.", encoded.name, teacher.folder)
        counts = lengths if encoded.task.output.per_token else np.ones_like(lengths)
        starts = torch.from_numpy(np.concatenate([[0], counts.cumsum()]))
        stored = {"values": _computed(teacher, encoded, starts, device), "starts": starts}
        _write(stored, file)
    return TeacherLogits(stored["values"], stored["starts"], encoded.task.output.per_token)


@torch.no_grad()
def _computed(
    teacher: Teacher, encoded: EncodedTask, starts: Tensor, device: torch.device
) -> Tensor:
    """Run the teacher in fp32 over all examples, those of similar length together."""
    model = teacher.model.to(device)
    order = np.argsort(_lengths(encoded), kind="stable").tolist()
    counts = starts.diff().tolist()
    parts: list[Tensor] = [torch.empty(0)] * len(order)
    for first in range(0, len(order), _BATCH_SIZE):
        rows = order[first : first + _BATCH_SIZE]
        inputs = encoded.batch("train", rows).to(device).inputs
        with torch.autocast(device.type, enabled=False):
            logits = model(encoded.name, inputs).cpu()
        for row, answers in zip(rows, logits, strict=True):
            parts[row] = answers.view(-1, answers.shape[-1])[: counts[row]]
    model.cpu()
    return torch.cat(parts)


def _lengths(encoded: EncodedTask) -> NDArray[np.int64]:
    return np.array([len(tokens) for tokens in encoded.splits["train"]["input_ids"][:]])


def _key(teacher: Teacher, encoded: EncodedTask) -> str:
    """Return a digest of all that the logits depend on, but for the last bits."""
    digest = hashlib.sha256(json.dumps([_FORMAT, teacher.digest, encoded.name]).encode())
    table = encoded.splits["train"]
    for column in sorted({*table.column_names} - {"labels", EXAMPLE}):
        digest.update(column.encode())
        for values in table[column][:]:
            digest.update(len(values).to_bytes(8, "little"))
            digest.update(np.asarray(values, np.int64).tobytes())
    return digest.hexdigest()[:32]


def _read(file: Path) -> dict[str, Tensor] | None:
    try:
        return load_file(file)
    except SafetensorError:
        log.warning("%s is damaged: recomputing the logits.", file)
        return None


def _write(tensors: dict[str, Tensor], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file, is_shared=True) as beside:
        beside.write_bytes(save(tensors))
