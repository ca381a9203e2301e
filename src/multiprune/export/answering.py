"""Batched inference with an exported model; inputs that tasks share are read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from multiprune.arguments import check_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from multiprune.export.shipped import ShippedModel
    from multiprune.tasks.outputs.output import Prediction, Request

# Texts that are tokenized at a time.
_TEXTS = 1024


@dataclass(frozen=True)
class _Row:
    """What an encoder reads, and which rows of which tasks that is."""

    inputs: Mapping[str, Sequence[int]]
    wanted: list[tuple[str, int]] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.inputs["input_ids"])


def predicted(
    model: ShippedModel,
    tasks: Sequence[str],
    texts: Sequence[Any],
    pairs: Sequence[str] | None,
    batch_size: int,
) -> dict[str, list[Prediction]]:
    """Return the predictions of tasks, whose weights of the encoder are the same."""
    check_number("batch_size", batch_size, at_least=1, whole=True)
    found: dict[str, list[Prediction]] = {task: [] for task in tasks}
    for start in range(0, len(texts), _TEXTS):
        part = slice(start, start + _TEXTS)
        some = None if pairs is None else pairs[part]
        requests = {task: model.request(task, texts[part], some) for task in tasks}
        for task, logits in _logits(model, requests, batch_size).items():
            found[task] += requests[task].predictions(logits)
    return found


@torch.no_grad()
def _logits(
    model: ShippedModel, requests: Mapping[str, Request], batch_size: int
) -> dict[str, list[Tensor]]:
    """Return by task the logits of each row, without those of padding."""
    rows = sorted(_rows(requests), key=lambda row: row.length)
    found: dict[str, dict[int, Tensor]] = {task: {} for task in requests}
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        tasks = list(dict.fromkeys(task for row in batch for task, _ in row.wanted))
        logits = model.logits_by_task(tasks, _padded(model, [row.inputs for row in batch]))
        for place, row in enumerate(batch):
            for task, number in row.wanted:
                one = logits[task][place].float().cpu()
                found[task][number] = one[: row.length] if one.dim() == 2 else one
    return {task: [by_row[row] for row in range(len(by_row))] for task, by_row in found.items()}


def _rows(requests: Mapping[str, Request]) -> Iterator[_Row]:
    known: dict[tuple[tuple[int, ...], ...], _Row] = {}
    for task, request in requests.items():
        names = list(request.inputs)
        for number, values in enumerate(zip(*request.inputs.values(), strict=True)):
            key = tuple(map(tuple, values))
            row = known.setdefault(key, _Row(dict(zip(names, values, strict=True))))
            row.wanted.append((task, number))
    yield from known.values()


def _padded(model: ShippedModel, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Tensor]:
    """Pad on the right, as in training."""
    padding = {"input_ids": model.tokenizer.pad_token_id}
    inputs = {
        name: pad_sequence(
            [torch.tensor(row[name], dtype=torch.long) for row in rows],
            batch_first=True,
            padding_value=padding.get(name, 0),
        )
        for name in rows[0]
    }
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    width = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
    return {name: tensor.to(model.encoder.device) for name, tensor in inputs.items()}
