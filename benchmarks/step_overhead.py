"""What pruning adds to a training step, and what it saves once layers are cut.

    python benchmarks/step_overhead.py                       # CPU: MiniLM shape, batch 32 x 64
    python benchmarks/step_overhead.py --shape bert_base --length 128 --device cuda --bf16
    OMP_NUM_THREADS=1 python benchmarks/step_overhead.py --clock process \
        --pruners structured low_rank --fraction 0.5

The pruners are those of ``conf/pruner``; methods that shrink layers appear twice, before the cut
and after it. Forward, backward, clipping and AdamW on random tokens, plain PyTorch loop. Models
take turns, one step each, in an order that is shuffled every round, because machines are shared and
noisy. A step is counted without its ranking, whose median time is divided by ``--every`` and added:
the cost averaged over a run that ranks anew all the time. Prints medians, the 95 % bootstrap
interval of the ratio of medians, and what ranking alone takes.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from multiprune.budget import Budget, FractionBudget, FullBudget
from multiprune.training.sandwich import shared_embeddings

if TYPE_CHECKING:
    from collections.abc import Callable

    from multiprune.pruning.pruner import Pruner

#: Hidden size and number of layers; heads are 12, and feed-forward layers 4 times as wide.
SHAPES = {"minilm": (384, 6), "bert_base": (768, 12)}
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
ELEMENT_WISE = ["magnitude", "movement", "soft_movement", "platon"]


CONFIGURATION = Path(__file__).parents[1] / "conf" / "pruner"


def pruner_of(name: str, fraction: float) -> Pruner:
    """Make the pruner that ``conf/pruner`` describes."""
    budget: Budget = FullBudget() if name == "none" else FractionBudget(fraction=fraction)
    pruner: Pruner = instantiate(OmegaConf.load(CONFIGURATION / f"{name}.yaml"), budget=budget)
    return pruner


@dataclass(frozen=True)
class Watch:
    """Tells the time, once the device has done what it was asked for."""

    device: torch.device
    clock: Callable[[], float]

    def __call__(self) -> float:
        """Return seconds."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return self.clock()


@dataclass
class Contestant:
    """A model in training, and how long its steps and its rankings took."""

    model: Any
    optimizer: torch.optim.Optimizer
    pruner: Pruner
    watch: Watch
    steps: list[float] = field(default_factory=list)
    rankings: list[float] = field(default_factory=list)
    is_cut: bool = False

    def step(self, tokens: Tensor, *, bf16: bool) -> None:
        """Take one optimizer step, and time it without ranking."""
        start = self.watch()
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bf16):
            loss = self.loss(tokens)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.pruner.before_step()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.pruner.after_step()
        self.steps.append(self.watch() - start)

    def loss(self, tokens: Tensor) -> Tensor:
        """Return the loss of the model, and of its parts if the pruner trains such."""
        if (parts := self.pruner.trained_parts()) is None:
            return self.loss_of_pass(tokens)
        with shared_embeddings(self.model):
            loss = self.loss_of_pass(tokens)
            for part in parts.parts_of_step(len(self.steps)):
                with parts.part(part):
                    loss = loss + self.loss_of_pass(tokens)
        return loss

    def loss_of_pass(self, tokens: Tensor) -> Tensor:
        """Return the loss of one forward pass."""
        states: Tensor = self.model(tokens).last_hidden_state
        return states.float().square().mean()

    def rank(self, amount: float) -> None:
        """Rank anew, and time it; there is nothing to rank after a cut."""
        if self.is_cut:
            return
        start = self.watch()
        self.pruner.prune(amount)
        self.rankings.append(self.watch() - start)

    def cut(self) -> Contestant | None:
        """Return a copy with layers that were cut, or None if the method cuts none."""
        other = copy.deepcopy(self)
        other.pruner.prune(1.0)
        other.is_cut = other.pruner.shrink(other.optimizer)
        return other if other.is_cut else None


def contestant(shape: str, pruner: Pruner, watch: Watch) -> Contestant:
    """Build a model with random weights, its optimizer, and a pruner driven by hand."""
    torch.manual_seed(0)
    hidden, layers = SHAPES[shape]
    config = BertConfig(
        vocab_size=30522,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=12,
    )
    model: nn.Module = BertModel(config, add_pooling_layer=False)
    model.to(watch.device).train()
    pruner.prepare(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    return Contestant(model, optimizer, pruner, watch)


def interval(dense: list[float], pruned: list[float], added: float) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of (median pruned + added) / median dense."""
    draw = random.Random(0)
    ratios = sorted(
        (statistics.median(draw.choices(pruned, k=len(pruned))) + added)
        / statistics.median(draw.choices(dense, k=len(dense)))
        for _ in range(1000)
    )
    return ratios[25], ratios[974]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pruners", nargs="+", default=ELEMENT_WISE)
    parser.add_argument("--fraction", type=float, default=0.1, help="of the weights that stays")
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--every", type=int, default=10, help="steps between two rankings")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: one thread only")
    options = parser.parse_args()
    device = torch.device(options.device)
    watch = Watch(device, CLOCKS[options.clock])
    tokens = torch.randint(1000, 30000, (options.batch, options.length), device=device)
    contestants = {}
    for name in ["none", *options.pruners]:
        one = contestant(options.shape, pruner_of(name, options.fraction), watch)
        contestants["dense" if name == "none" else name] = one
        if (cut := one.cut()) is not None:
            contestants[f"{name}, cut"] = cut
    turns = list(contestants.values())
    for number in range(options.rounds + 2):
        random.Random(number).shuffle(turns)
        for one in turns:
            one.step(tokens, bf16=options.bf16)
            one.rank(0.5 + 0.5 * number / (options.rounds + 2))
    report(contestants, options.every)


def report(contestants: dict[str, Contestant], every: int) -> None:
    """Print medians and ratios, leaving out the first two rounds, which warm up."""
    table = Table()
    table.add_column("pruner", no_wrap=True)
    for column in ("step ms", "ranking ms", f"every {every}: ms", "ratio", "95 %"):
        table.add_column(column, justify="right")
    dense = contestants["dense"].steps[2:]
    for name, one in contestants.items():
        step, ranking = statistics.median(one.steps[2:]), statistics.median(one.rankings[2:] or [0])
        total = step + ranking / every
        low, high = interval(dense, one.steps[2:], ranking / every)
        milliseconds = [f"{1e3 * seconds:.1f}" for seconds in (step, ranking, total)]
        ratio = f"{total / statistics.median(dense):.3f}"
        table.add_row(name, *milliseconds, ratio, f"{low:.3f}-{high:.3f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
