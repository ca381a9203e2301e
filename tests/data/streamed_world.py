"""Corpora of a few sentences, and what reads them as a stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet
import torch
from masked_task import masked_task

from multiprune.data.datamodule import MultitaskDataModule
from multiprune.data.mixing import ProportionalMixing
from multiprune.data.source import GeneratedSource
from multiprune.data.streamed_source import StreamedSource
from multiprune.models.from_scratch import character_tokenizer
from multiprune.tasks.packing import within_texts
from multiprune.tasks.synthetic import WORDS, agreement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from multiprune.data.batches import TrainBatches
    from multiprune.tasks.masked_language import MaskedLanguage
    from multiprune.tasks.task import Batch, Task

TOKENIZER = character_tokenizer()

#: Each a text of its own, of three words.
TEXTS = [
    f"{WORDS[number % 23]} {WORDS[23 + number // 23]} {WORDS[number % 7]}" for number in range(120)
]


def write_lines(folder: Path, texts: Sequence[str] = TEXTS, files: int = 3) -> str:
    """Write texts to files of lines; return the pattern that finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        lines = "".join(f"{text}\n" for text in texts[number::files])
        (folder / f"{number}.txt").write_bytes(lines.encode())
    return str(folder / "*.txt")


def write_parquet(file: Path, texts: Sequence[str], row_group_size: int) -> str:
    """Write texts to a parquet file, beside another column."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"year": [*range(len(texts))], "text": [*texts]})
    pyarrow.parquet.write_table(table, file, row_group_size=row_group_size)
    return str(file)


def source(*files: str, **changes: Any) -> StreamedSource:
    """Return a source of small pieces, two of which are shuffled together."""
    arguments: dict[str, Any] = {
        "examples_per_epoch": 40,
        "evaluation": GeneratedSource(
            generator=lambda count, seed: {"text": agreement(count, seed)["sentence"]},
            rows={"validation": 8},
        ),
        "piece_size": 250,
        "buffer": 2,
    }
    return StreamedSource(files=files, **arguments | changes)


def streamed(*files: str, packing: Any = within_texts, **changes: Any) -> MaskedLanguage:
    """Return a task of such a source; a block of it is a text."""
    return masked_task(source=source(*files, **changes), packing=packing).read_by(TOKENIZER)


@dataclass(frozen=True)
class Place:
    """Stands for a Trainer, which says where this process is among others."""

    global_rank: int
    world_size: int
    strategy: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(root_device=torch.device("cpu"))
    )


def data_module(
    cache: Path,
    tasks: dict[str, Task] | Task,
    *,
    rank: int = 0,
    world_size: int = 1,
    **changes: Any,
) -> MultitaskDataModule:
    """Return the data of tasks, set up."""
    arguments: dict[str, Any] = {
        "tokenizer": TOKENIZER,
        "max_length": 16,
        "batch_size": 8 // world_size,
        "mixing": ProportionalMixing(),
        "cache": str(cache),
    }
    tasks = tasks if isinstance(tasks, dict) else {"mlm": tasks}
    data = MultitaskDataModule(tasks=tasks, **arguments | changes)
    data.trainer = Place(rank, world_size)  # type: ignore[assignment]
    data.prepare_data()
    data.setup()
    return data


def train_batches(cache: Path, tasks: dict[str, Task] | Task, **changes: Any) -> TrainBatches[Any]:
    """Return the training batches of tasks."""
    return data_module(cache, tasks, **changes).train_dataloader()


def take(batches: TrainBatches[Any], count: int) -> list[Batch]:
    """Return the next batches, over the ends of epochs."""
    found: list[Batch] = []
    while len(found) < count:
        for batch in batches:
            found.append(batch)
            if len(found) == count:
                break
    return found


def tokens_of(batch: Batch) -> list[tuple[int, ...]]:
    """Return the tokens of each block as they are in the corpus, without padding."""
    hidden = batch.labels != -100
    whole = batch.inputs["input_ids"].where(~hidden, batch.labels)
    lengths = batch.inputs["attention_mask"].sum(1).tolist()
    return [tuple(row[:length].tolist()) for row, length in zip(whole, lengths, strict=True)]


def texts_of(batches: Iterable[Batch]) -> list[str]:
    """Return the texts of blocks that are texts."""
    return [
        str(TOKENIZER.decode([*tokens[1:-1]])) for batch in batches for tokens in tokens_of(batch)
    ]


def read(batches: Iterable[Batch]) -> list[tuple[Any, ...]]:
    """Return all that an encoder is given: blocks, what is hidden, and numbers."""
    return [
        (
            batch.task,
            batch.inputs["input_ids"].tolist(),
            batch.labels.tolist(),
            [*batch.rows],
        )
        for batch in batches
    ]


def encoded_pieces(cache: Path) -> int:
    """Return how many pieces have been encoded."""
    return len([one for one in cache.glob("streamed-*/*") if not one.name.startswith(".")])
