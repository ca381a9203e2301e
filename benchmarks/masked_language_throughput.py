"""How fast masked language modelling is fed, and how fast an encoder trains on what it is fed.

    python benchmarks/masked_language_throughput.py --threads 2 \
        --tokenizer src/multiprune/models/nano --files 'DATA/general_text/*/train.parquet'
    … --clock process --threads 1              # CPU time, where others use the machine too
    … --device cuda --bf16 --compile --batch 256

Three rates, in tokens a second: of a stream of which nothing is cached (read, tokenize, pack,
shuffle, pad, hide), of the same from the cache, and of training steps of an encoder with random
weights (forward, backward, clipping, AdamW). They take turns in an order that is shuffled every
round, because machines are shared and noisy: a stream gives all blocks of one piece, the encoder
takes some steps. Everything happens in this process, without workers. Prints medians, and how many
times faster an encoder is fed than it learns.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from multiprune.data.datamodule import MultitaskDataModule
from multiprune.data.mixing import ProportionalMixing
from multiprune.data.source import GeneratedSource
from multiprune.data.streamed_source import StreamedSource
from multiprune.metrics import TokenAccuracy
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.quiet import quiet_libraries
from multiprune.tasks.masked_language import MaskedLanguage
from multiprune.tasks.packing import across_texts
from multiprune.tasks.synthetic import agreement

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from multiprune.models.encoder import Encoder
    from multiprune.tasks.task import Batch

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


@dataclass(frozen=True)
class Feed:
    """What reads a corpus for an encoder."""

    task: MaskedLanguage
    encoder: Encoder
    options: argparse.Namespace
    clock: Callable[[], float]

    def rate(self, cache: Path, seed: int) -> tuple[float, list[Batch]]:
        """Return tokens a second over all blocks of one piece, and the batches."""
        data = MultitaskDataModule(
            tasks={"mlm": self.task},
            tokenizer=self.encoder.tokenizer,
            max_length=self.options.length,
            batch_size=self.options.batch,
            mixing=ProportionalMixing(),
            cache=str(cache),
            seed=seed,
        )
        data.setup()
        batches = data.train_dataloader()
        stream = batches.streams["mlm"]
        start = self.clock()
        turn = iter(batches)
        found = [next(turn)]
        found += [next(turn) for _ in range(stream.held.stop // self.options.batch - 1)]
        return tokens_in(found) / (self.clock() - start), found


class Learner:
    """A model in training."""

    def __init__(self, task: MaskedLanguage, encoder: Encoder, options: argparse.Namespace) -> None:
        self.task, self.device, self.bf16 = task, torch.device(options.device), options.bf16
        self.clock = CLOCKS[options.clock]
        model = MultitaskModel(encoder.model, {"mlm": task}).to(self.device).train()
        self.parameters = [*model.parameters()]
        self.model: Callable[[Batch], Tensor] = torch.compile(model) if options.compile else model
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)

    def rate(self, batches: list[Batch]) -> float:
        """Return tokens a second of training on batches."""
        start = self.now()
        for batch in batches:
            self.step(batch.to(self.device))
        return tokens_in(batches) / (self.now() - start)

    def step(self, batch: Batch) -> None:
        """Take one optimizer step."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.task.loss(self.model(batch), batch.labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()

    def now(self) -> float:
        """Return the time, once the device has done what it was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return self.clock()


def tokens_in(batches: list[Batch]) -> int:
    """Return the number of tokens, without padding."""
    return sum(int(batch.inputs["attention_mask"].sum()) for batch in batches)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", nargs="+", required=True, help="patterns")
    parser.add_argument("--tokenizer", help="folder")
    for name, size in (("layers", 3), ("hidden", 192), ("heads", 4), ("intermediate", 768)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--piece", type=int, default=1 << 20, help="bytes of text of a piece")
    parser.add_argument("--steps", type=int, default=4, help="of a turn of the encoder")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: one thread only")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Measure and print the table."""
    options = arguments()
    quiet_libraries()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    encoder = from_scratch(
        layers=options.layers,
        hidden=options.hidden,
        heads=options.heads,
        intermediate=options.intermediate,
        tokenizer=options.tokenizer,
    )
    task = task_of(options).read_by(encoder.tokenizer)
    feed = Feed(task, encoder, options, CLOCKS[options.clock])
    learner = Learner(task, encoder, options)
    rates: dict[str, list[float]] = {"nothing cached": [], "from the cache": [], "training": []}
    with tempfile.TemporaryDirectory() as folder:
        batches = feed.rate(Path(folder) / "cached", 0)[1]
        learner.rate(batches[: options.steps])
        for number in range(options.rounds):
            for name in random.Random(number).sample(sorted(rates), len(rates)):
                if name == "training":
                    rates[name].append(learner.rate(batches[: options.steps]))
                elif name == "from the cache":
                    rates[name].append(feed.rate(Path(folder) / "cached", 0)[0])
                else:
                    rates[name].append(feed.rate(Path(folder) / str(number), number + 1)[0])
    report(rates)


def task_of(options: argparse.Namespace) -> MaskedLanguage:
    """Return the task that is measured; nothing is validated."""
    source = StreamedSource(
        files=options.files,
        examples_per_epoch=1 << 20,
        evaluation=GeneratedSource(
            generator=lambda count, seed: {"text": agreement(count, seed)["sentence"]},
            rows={"validation": 1},
        ),
        piece_size=options.piece,
        buffer=1,
    )
    return MaskedLanguage(
        text=["text"],
        probability=0.15,
        packing=across_texts,
        metrics={"accuracy": TokenAccuracy()},
        source=source,
    )


def report(rates: dict[str, list[float]]) -> None:
    """Print medians, the range of the middle half of the turns, and ratios to training."""
    table = Table()
    table.add_column("", no_wrap=True)
    for column in ("tokens a second", "middle half", "times training"):
        table.add_column(column, justify="right")
    training = statistics.median(rates["training"])
    for name, found in rates.items():
        low, median, high = statistics.quantiles(found, n=4)
        table.add_row(name, f"{median:,.0f}", f"{low:,.0f}-{high:,.0f}", f"{median / training:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
