"""``multiprune export``, ``pack``, ``frontier`` and ``benchmark``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.cli.command import add_command
from multiprune.quiet import quiet_libraries

if TYPE_CHECKING:
    from multiprune.cli.command import Commands


def add_model_commands(commands: Commands) -> None:
    """Add ``export``, ``pack``, ``frontier`` and ``benchmark``."""
    _add_export(commands)
    _add_pack(commands)
    _add_frontier(commands)
    _add_benchmark(commands)


def _add_export(commands: Commands) -> None:
    export = add_command(
        commands,
        "export",
        summary="Export a run's model.",
        about="Writes encoder, heads and tokenizer to a new folder that transformers or ONNX "
        "Runtime load, physically smaller where whole units were pruned.",
        example="multiprune export runs/2026-01-31/12-00-00 --out my-model",
    )
    export.add_argument("run", type=Path, help="folder of a run, or of an exported model")
    export.add_argument("--out", type=Path, required=True, help="new folder")
    export.add_argument(
        "--format", default="transformers", help="transformers or onnx (default: %(default)s)"
    )
    export.add_argument(
        "--storage",
        default="dense",
        help="dense, or bitmask to store no zeros (default: %(default)s)",
    )
    export.add_argument("--dtype", help="fp32, fp16 or bf16 (default: that of the model)")
    export.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="keep only the tokens that occur in these texts, one per line",
    )
    export.add_argument(
        "--density",
        type=float,
        help="density of a dynamic model, of pruner=dynamic_sparsification (default: its lowest)",
    )
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> None:
    from multiprune.export.convert import ExportSettings, export_model

    quiet_libraries()
    settings = ExportSettings(format=options.format, storage=options.storage, dtype=options.dtype)
    corpus = None
    if options.vocabulary is not None:
        corpus = options.vocabulary.read_text().splitlines()
    export_model(options.run, options.out, settings, corpus=corpus, density=options.density)
    _print_size(options.out)


def _add_pack(commands: Commands) -> None:
    pack = add_command(
        commands,
        "pack",
        summary="Export several runs that share frozen weights to one folder.",
        about="The runs were trained with pruner=frozen_movement from one encoder. The folder "
        "holds the shared weights once, and the mask and heads of each run; the loaded model "
        "selects the mask by task.",
        example="multiprune pack runs/mrpc runs/rte --out all-tasks",
    )
    pack.add_argument("runs", type=Path, nargs="+", help="folders of runs, or of exported models")
    pack.add_argument("--out", type=Path, required=True, help="new folder")
    pack.set_defaults(command=_pack)


def _pack(options: argparse.Namespace) -> None:
    from multiprune.export.pack import pack

    quiet_libraries()
    print(pack(options.runs, options.out))
    _print_size(options.out)


def _add_frontier(commands: Commands) -> None:
    frontier = add_command(
        commands,
        "frontier",
        summary="Evaluate a dynamic model at several densities.",
        about="The run is one of pruner=dynamic_sparsification; its data is read once. The scores "
        "are also written to frontier.json in the run's folder, where `multiprune report` reads "
        "them.",
        example="multiprune frontier runs/dynamic --densities 1,0.6,0.4,0.2",
    )
    frontier.add_argument("run", type=Path, help="folder of a run")
    text = "densities to evaluate (default: 1, 0.9, 0.8, … and the lowest)"
    frontier.add_argument("--densities", type=_densities, metavar="D,D", help=text)
    text = "split to evaluate (default: %(default)s)"
    frontier.add_argument(
        "--split", choices=["validation", "test"], default="validation", help=text
    )
    text = "local mirror to read data from (default: that of the run)"
    frontier.add_argument("--mirror", metavar="DIR", help=text)
    add_allow_targets(frontier)
    text = "also write the scores as JSON"
    frontier.add_argument("--json", type=Path, metavar="FILE", help=text)
    frontier.set_defaults(command=_frontier)


def _frontier(options: argparse.Namespace) -> None:
    from multiprune.frontier import frontier, print_sizes, write_frontier, write_sizes

    quiet_libraries()
    sizes = frontier(
        options.run,
        options.densities,
        split=options.split,
        mirror=options.mirror,
        allow_targets=options.allow_targets,
    )
    print_sizes(sizes)
    if options.json is not None:
        write_sizes(sizes, options.json)
    # Last, as the folder may be one that others may only read.
    write_frontier(sizes, options.run, split=options.split)


def _add_benchmark(commands: Commands) -> None:
    benchmark = add_command(
        commands,
        "benchmark",
        summary="Measure size, latency and memory against the dense model.",
        about="Measures pruned encoders and dense encoders of the same configuration with random "
        "weights: parameters, bytes on disk, peak memory, multiply-adds, latency (median and 90th "
        "percentile of interleaved forward passes, without padding) and throughput. `allowed` is "
        "the larger of the speed-ups that multiply-adds and weight bytes allow; a higher "
        "measurement is marked as disturbed. An ONNX folder is timed as it is, with its heads, by "
        "ONNX Runtime.",
        example="multiprune benchmark my-model --batch 1,8 --length 32,128",
    )
    benchmark.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="RUN_OR_DIR",
        help="folder of a run, or of an exported model",
    )
    for flag, count, default in (
        ("--batch", "batch sizes", "1,8,32"),
        ("--length", "sequence lengths in tokens", "32,128"),
    ):
        text = f"{count} (default: %(default)s)"
        benchmark.add_argument(flag, type=_numbers, metavar="N,N", default=default, help=text)
    text = "timing rounds; models are interleaved (default: %(default)s)"
    benchmark.add_argument("--rounds", type=int, metavar="N", default=10, help=text)
    text = "inference backends (default: %(default)s)"
    every = "eager,compiled,onnx"
    benchmark.add_argument("--backend", type=names, metavar="NAME,NAME", default=every, help=text)
    text = "cpu, cuda (default: all available)"
    benchmark.add_argument("--device", type=names, metavar="NAME,NAME", help=text)
    benchmark.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the results as JSON"
    )
    benchmark.set_defaults(command=_benchmark)


def _benchmark(options: argparse.Namespace) -> None:
    from multiprune.measure import backends, report

    report(
        options.paths,
        batches=options.batch,
        lengths=options.length,
        rounds=options.rounds,
        backends=backends(options.backend, options.device),
        json=options.json,
    )


def add_allow_targets(command: argparse.ArgumentParser) -> None:
    """Add ``--allow-targets``, for a command that builds tasks from a run's configuration."""
    command.add_argument(
        "--allow-targets",
        type=names,
        metavar="PACKAGE,PACKAGE",
        default=[],
        help="other packages whose classes and functions the run's configuration may import "
        "(default: only multiprune and torchmetrics)",
    )


def names(text: str) -> list[str]:
    """Return comma-separated names."""
    return text.split(",")


def _densities(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be numbers such as 0.5,0.25, but is {text!r}"
        ) from None


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(
            f"must be whole numbers from 1 on, such as 1,8, but is {text!r}"
        )
    return [int(part) for part in parts]


def _print_size(folder: Path) -> None:
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1e6:.2f} MB")
