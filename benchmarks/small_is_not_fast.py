"""What becomes small and what becomes fast, when heads, neurons, layers or tokens are cut.

    OMP_NUM_THREADS=1 python benchmarks/small_is_not_fast.py --clock process \
        --json ladder.json --figure ladder.png
    python benchmarks/small_is_not_fast.py --config FOLDER          # another model's shapes
    python benchmarks/small_is_not_fast.py --draw ladder.json --figure ladder.png

The question of Li et al. (2022, arXiv 2204.02601), who find that small is not the same as fast.
Weights are random, as time depends on shapes only; there is no padding. Each model is written as it
is shipped, and its file measured. Models take turns, one forward pass each, in an order that is
shuffled every round, because machines are shared and noisy; where threads wait for those of others,
``--clock process`` measures the time of the processor.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, XLMRobertaConfig

from multiprune.export.checkpoint import save_encoder
from multiprune.measure.backends import Eager
from multiprune.measure.benchmark import Benchmark, machine
from multiprune.measure.contestant import Contestant, Cost, cost_of
from multiprune.measure.ladder import GRANULARITIES, ladder
from multiprune.measure.latency import Size, time_models
from multiprune.measure.reference import Blueprint
from multiprune.measure.table import print_machine
from multiprune.models.encoder import Encoder
from multiprune.models.from_scratch import character_tokenizer
from multiprune.quiet import quiet_libraries
from multiprune.report.page.drawing import MARKERS, PALETTE, SERIES, image
from multiprune.report.page.plots import short

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PretrainedConfig, PreTrainedModel

DENSE = "dense"

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


def configuration(named: str) -> PretrainedConfig:
    """Return the shapes of XLM-R base, or of a model in a folder."""
    if named != "xlmr":
        config: PretrainedConfig = AutoConfig.from_pretrained(named)
        return config
    return XLMRobertaConfig(vocab_size=250002, max_position_embeddings=514, type_vocab_size=1)


def contestants(config: PretrainedConfig, shares: Sequence[float]) -> Iterator[Contestant]:
    """Yield the dense encoder and all that are cut from it, each in a folder while it is asked."""
    dense = Blueprint(config, pooler=False, dtype=torch.float32).build()
    yield from _written(DENSE, dense)
    for rung in ladder(dense, shares):
        yield from _written(rung.name, rung.encoder)


def _written(name: str, encoder: PreTrainedModel) -> Iterator[Contestant]:
    with tempfile.TemporaryDirectory() as folder:
        save_encoder(Path(folder), encoder)
        # The tokenizer takes no part: tokens are drawn.
        yield Contestant(name, DENSE, Encoder(encoder, character_tokenizer()), Path(folder))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return what ``benchmark.json`` holds, with the shape that was asked for."""
    sizes = [Size(batch, length) for batch in options.batch for length in options.length]
    costs: list[Cost] = []
    encoders: dict[str, Encoder] = {}
    for one in contestants(configuration(options.config), options.shares):
        costs.append(cost_of(one, sizes, devices=[]))
        encoders[one.name] = one.encoder
    latencies = time_models(encoders, Eager(), sizes, options.rounds, CLOCKS[options.clock])
    measured = Benchmark(machine(), costs, list(latencies))
    how = {name: getattr(options, name) for name in ("config", "shares", "rounds", "clock")}
    return how | measured.as_json()


def milliseconds(content: dict[str, Any], model: str) -> dict[tuple[int, int], float]:
    """Return the median latencies of a model by batch and length."""
    return {
        (one["batch"], one["length"]): one["median_ms"]
        for one in content["latencies"]
        if one["model"] == model
    }


def print_ladder(content: dict[str, Any]) -> None:
    """Print sizes and times of all models; times of those that were cut as speed-ups."""
    print_machine(content["machine"])
    table = Table("model", title="size, and speed-up by batch x length")
    sizes = list(milliseconds(content, DENSE))
    counted = ("parameters", "without embeddings", "MB on disk", "multiply-adds")
    for column in (*counted, *(f"{batch} x {length}" for batch, length in sizes)):
        table.add_column(column, justify="right")
    dense = milliseconds(content, DENSE)
    operations = content["models"][0]["multiply_adds"][-1]["multiply_adds"]
    for one in content["models"]:
        took = milliseconds(content, one["model"])
        table.add_row(
            one["model"],
            f"{one['parameters'] / 1e6:.1f} M",
            f"{one['without_embeddings'] / 1e6:.1f} M",
            f"{one['bytes'] / 1e6:.0f}",
            f"{one['multiply_adds'][-1]['multiply_adds'] / operations:.2f}",
            *(
                f"{took[size]:.1f} ms"
                if one["model"] == DENSE
                else f"{dense[size] / took[size]:.2f}"
                for size in sizes
            ),
        )
    Console(width=140).print(table)


def draw(content: dict[str, Any]) -> Figure:
    """Draw what the parameters of each model are, and its time beside their number."""
    figure = Figure(figsize=(7.4, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    _draw_parameters(left, content["models"])
    _draw_latencies(right, content)
    return figure


def _draw_parameters(axes: Any, models: Sequence[dict[str, Any]]) -> None:
    heights, names = [], []
    for place, one in enumerate(models):
        kind, _, share = one["model"].rpartition(" ")
        group = [*GRANULARITIES].index(kind) + 1 if kind else 0
        heights.append(-place - 0.6 * group)
        names.append(f"{float(share):.0%} of {kind}" if kind else DENSE)
    rest = [one["without_embeddings"] for one in models]
    embeddings = [one["parameters"] - one["without_embeddings"] for one in models]
    options: Any = {"height": 0.8, "edgecolor": PALETTE["ground"], "linewidth": 0.5}
    axes.barh(heights, embeddings, color=PALETTE["faint"], label="embeddings", **options)
    axes.barh(heights, rest, left=embeddings, color=SERIES[5], label="the rest", **options)
    axes.set_yticks(heights, names)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(int(value))))
    axes.set_xlabel("parameters")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    axes.margins(y=0.02)


def _draw_latencies(axes: Any, content: dict[str, Any]) -> None:
    size = max(milliseconds(content, DENSE))
    places = {
        one["model"]: (one["parameters"], milliseconds(content, one["model"])[size])
        for one in content["models"]
    }
    whole, slowest = places[DENSE]
    axes.plot([0, whole], [0, slowest], ":", color=PALETTE["faint"], lw=1)
    axes.annotate(
        "as much faster\nas smaller", (0.4 * whole, 0.4 * slowest), (-6, 2), va="bottom",
        ha="right", textcoords="offset points", color=PALETTE["faint"], fontsize=7.5,
    )  # fmt: skip
    for index, kind in enumerate(GRANULARITIES):
        points = [places[DENSE]]
        points += [place for name, place in places.items() if name.rpartition(" ")[0] == kind]
        axes.plot(
            *zip(*points, strict=True), marker=MARKERS[index], color=SERIES[index], markersize=4,
            label=kind,
        )  # fmt: skip
    axes.set_xlim(0, 1.06 * whole)
    axes.set_ylim(0, 1.12 * max(took for _, took in places.values()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(int(value))))
    axes.set_xlabel("parameters")
    axes.set_ylabel(f"ms a forward pass of {size[0]} x {size[1]}")
    axes.grid()
    options: Any = {"handlelength": 1.8, "columnspacing": 1.2}
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=3, **options)


def main() -> None:
    """Measure, or read what was measured; print, write and draw it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="xlmr", help="xlmr, or a folder with a config.json")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.75, 0.5, 0.25])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--length", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path, help="write the numbers")
    parser.add_argument("--figure", type=Path, help="draw them")
    parser.add_argument("--draw", type=Path, help="numbers that were written, instead of new ones")
    options = parser.parse_args()
    quiet_libraries()
    content = json.loads(options.draw.read_text()) if options.draw else measure(options)
    print_ladder(content)
    if options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    if options.figure:
        image(lambda: draw(content)).save(options.figure)


if __name__ == "__main__":
    main()
