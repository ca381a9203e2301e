"""``multiprune export | pack | benchmark | allocate | report | status | sync``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    """Run one command; wrong input ends it with one sentence."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        sys.exit(f"error: {next(iter(str(error).splitlines()), type(error).__name__)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="multiprune", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    export = commands.add_parser("export", help="write the model of a run to a folder")
    export.add_argument("run", type=Path, help="folder of a run, or of an exported model")
    export.add_argument("--out", type=Path, required=True, help="new folder")
    export.add_argument("--format", default="transformers", help="transformers or onnx")
    export.add_argument("--storage", default="dense", help="dense, or bitmask: store no zeros")
    export.add_argument("--dtype", help="fp32, fp16 or bf16")
    export.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="keep only tokens that these texts, one a line, are made of",
    )
    export.set_defaults(command=_export)

    _add_pack(commands)
    _add_benchmark(
        commands.add_parser(
            "benchmark",
            help="measure size and speed, beside dense",
            description="Measure pruned encoders beside dense ones of the same configuration, with "
            "random weights: parameters, bytes on disk, peak memory, multiply-adds, latency "
            "(median and 90th percentile of forward passes that take turns, without padding), and "
            "throughput. `allowed` is the speed-up that the multiply-adds allow.",
        )
    )
    _add_allocate(commands)
    _add_report(commands)
    _add_status(commands)
    _add_sync(commands)
    return parser


def _add_pack(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pack = commands.add_parser(
        "pack",
        help="write the models of runs that share frozen weights to one folder",
        description="Write models that keep parts of the same weights, trained with "
        "pruner=frozen_movement from one encoder, to one folder: the weights once, and a mask and "
        "the heads of each run. What is loaded from it switches masks by the task it is asked for.",
    )
    pack.add_argument("runs", type=Path, nargs="+", help="folders of runs, or of exported models")
    pack.add_argument("--out", type=Path, required=True, help="new folder")
    pack.set_defaults(command=_pack)


def _add_benchmark(benchmark: argparse.ArgumentParser) -> None:
    benchmark.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="RUN_OR_DIR",
        help="folder of a run, or of an exported model",
    )
    for flag, count, default in (
        ("--batch", "examples", "1,8,32"),
        ("--length", "tokens", "32,128"),
    ):
        text = f"numbers of {count} (default: %(default)s)"
        benchmark.add_argument(flag, type=_numbers, metavar="N,N", default=default, help=text)
    text = "how often each model takes its turn (default: %(default)s)"
    benchmark.add_argument("--rounds", type=int, metavar="N", default=10, help=text)
    text = "by what models are run (default: %(default)s)"
    every = "eager,compiled,onnx"
    benchmark.add_argument("--backend", type=_names, metavar="NAME,NAME", default=every, help=text)
    text = "cpu, cuda (default: those there are)"
    benchmark.add_argument("--device", type=_names, metavar="NAME,NAME", help=text)
    benchmark.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as well")
    benchmark.set_defaults(command=_benchmark)


def _names(text: str) -> list[str]:
    return text.split(",")


def _add_allocate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    allocate = commands.add_parser(
        "allocate",
        help="share one budget among single-task models so that their mean score is best",
        description="Choose a trained size for each task so that all models together fit the "
        "budget and the mean validation score is best. The even split, the split proportional to "
        "training examples and the best multitask run within the budget stand beside it.",
    )
    allocate.add_argument("runs", type=Path, nargs="+", help="folders of runs, searched through")
    allocate.add_argument(
        "--budget",
        required=True,
        metavar="COUNT|FRACTION",
        help="for all models together: a number of parameters such as 2000000, or a fraction such "
        "as 0.2 of ONE dense model with a head for every task, as in a multitask run",
    )
    allocate.add_argument("--of", default="encoder_linear", help="encoder_linear, encoder or total")
    allocate.add_argument(
        "--embeddings",
        choices=["own", "shared"],
        default="own",
        help="shared: count the embeddings of all single-task models once, which must have been "
        "trained with +encoder.freeze_embeddings=true",
    )
    _add_ignore(allocate)
    allocate.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as well")
    allocate.set_defaults(command=_allocate)


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    report = commands.add_parser(
        "report",
        help="show finished runs as one page with figures",
        description="Compare finished runs of one encoder: scores against kept parameters, "
        "multitask against the best ensemble of single-task models, where parameters are kept, "
        "wall time, and every run with its command. The page needs no network.",
    )
    report.add_argument("runs", type=Path, nargs="+", help="folders of runs, searched through")
    report.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="new folder, or that of an earlier report (default: report for html; other formats "
        "are printed)",
    )
    report.add_argument("--format", default="html", help="html, markdown, json or csv (runs only)")
    what = report.add_mutually_exclusive_group()
    what.add_argument(
        "--masks",
        action="store_true",
        help="read the masks of every run, and show what tasks and seeds share",
    )
    what.add_argument(
        "--by-examples",
        action="store_true",
        help="runs differ in their numbers of training examples (data.cap), of one task at a time: "
        "show it alone and together with the others, by that number",
    )
    report.add_argument(
        "--wandb",
        metavar="ENTITY/PROJECT",
        help="instead of a page, save a workspace to W&B for the runs that were logged there",
    )
    report.add_argument(
        "--wandb-json", type=Path, metavar="FILE", help="write that workspace to a file instead"
    )
    _add_ignore(report)
    report.set_defaults(command=_report)


def _add_sync(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sync = commands.add_parser("sync", help="send offline W&B runs")
    sync.add_argument("runs", type=Path, nargs="+", help="folders of runs, searched through")
    sync.add_argument("--dry-run", action="store_true", help="only say what would be sent")
    sync.set_defaults(command=_sync)


def _add_status(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    status = commands.add_parser(
        "status",
        help="show how far runs have come, and what became of them",
        description="Show state, steps, density, score and time left of every run in some folders, "
        "while they run and afterwards. Only the folders are read. `lost` is a run that can no "
        "longer be running, although it did not say that it ended.",
    )
    status.add_argument("runs", type=Path, nargs="+", help="folders of runs, searched through")
    status.add_argument(
        "--format", choices=["table", "json"], default="table", help="(default: %(default)s)"
    )
    status.set_defaults(command=_status)


def _add_ignore(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ignore",
        nargs="+",
        default=[],
        metavar="KEY",
        help="settings that may differ within one method, such as trainer.max_epochs",
    )


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(
            f"must be whole numbers from 1 on, such as 1,8, but is {text!r}"
        )
    return [int(part) for part in parts]


def _export(options: argparse.Namespace) -> None:
    # Imported late, so that --help answers at once.
    from multiprune.export.convert import ExportSettings, export_model

    _quiet_transformers()
    settings = ExportSettings(format=options.format, storage=options.storage, dtype=options.dtype)
    corpus = None
    if options.vocabulary is not None:
        corpus = options.vocabulary.read_text().splitlines()
    export_model(options.run, options.out, settings, corpus=corpus)
    _print_size(options.out)


def _pack(options: argparse.Namespace) -> None:
    from multiprune.export.pack import pack

    _quiet_transformers()
    print(pack(options.runs, options.out))
    _print_size(options.out)


def _quiet_transformers() -> None:
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _print_size(folder: Path) -> None:
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1e6:.2f} MB")


def _benchmark(options: argparse.Namespace) -> None:
    # Imported late, so that --help answers at once.
    from multiprune.measure import backends, report

    report(
        options.paths,
        batches=options.batch,
        lengths=options.length,
        rounds=options.rounds,
        backends=backends(options.backend, options.device),
        json=options.json,
    )


def _allocate(options: argparse.Namespace) -> None:
    from multiprune.budget.budget import parse_budget
    from multiprune.report.ensemble import Request, best_ensembles
    from multiprune.report.ensemble_table import print_ensembles, write_ensembles
    from multiprune.report.frame import read_runs

    request = Request(
        parse_budget(options.budget, of=options.of),
        shared_embeddings=options.embeddings == "shared",
    )
    frame = read_runs(*options.runs)
    ensembles = best_ensembles(frame, request, ignore=options.ignore)
    if options.json is not None:
        write_ensembles(ensembles, options.json)
    print_ensembles(ensembles)


def _report(options: argparse.Namespace) -> None:
    if options.wandb is not None or options.wandb_json is not None:
        _dashboard(options)
        return
    from multiprune.report.write import Report, check_request

    out = Path("report") if options.out is None and options.format == "html" else options.out
    check_request(options.format, out)
    if options.by_examples:
        report = Report.of_examples(options.runs, ignore=options.ignore)
    else:
        report = Report.of(options.runs, ignore=options.ignore, masks=options.masks)
    if out is None:
        print(report.text(options.format), end="")
    else:
        print(f"{report.write(out, options.format)}: {report.lead}")
    for one in report.overview.left_out:
        print(f"Left out: {one.path}: {one.reason}", file=sys.stderr)


def _dashboard(options: argparse.Namespace) -> None:
    from multiprune.report.dashboard import publish
    from multiprune.report.frame import read_runs

    if options.wandb is None:
        raise ValueError("`--wandb-json` needs `--wandb ENTITY/PROJECT` beside it.")
    print(publish(read_runs(*options.runs).rows, options.wandb, options.wandb_json))


def _sync(options: argparse.Namespace) -> None:
    from multiprune.report.sync import sync

    sync(options.runs, dry_run=options.dry_run)


def _status(options: argparse.Namespace) -> None:
    from multiprune.report.jobs import as_json, print_jobs, read_jobs

    jobs = read_jobs(*options.runs)
    if options.format == "json":
        print(as_json(jobs), end="")
    else:
        print_jobs(jobs)
