"""``multiprune allocate``, ``report``, ``status`` and ``sync``, which read folders of runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.cli.command import add_command
from multiprune.message import printable

if TYPE_CHECKING:
    import argparse

    from multiprune.cli.command import Commands


def add_run_commands(commands: Commands) -> None:
    """Add ``allocate``, ``report``, ``status`` and ``sync``."""
    _add_allocate(commands)
    _add_report(commands)
    _add_status(commands)
    _add_sync(commands)


def _add_allocate(commands: Commands) -> None:
    allocate = add_command(
        commands,
        "allocate",
        summary="Choose per-task model sizes that maximize the mean score within one budget.",
        about="Chooses among the trained single-task models; the score is on validation data. "
        "For comparison it lists the even split, the split proportional to training examples and "
        "the best multitask run within the budget.",
        example="multiprune allocate runs/multitask_vs_ensemble --budget 0.4",
    )
    allocate.add_argument("runs", type=Path, nargs="+", help="folders to search for runs")
    allocate.add_argument(
        "--budget",
        required=True,
        metavar="COUNT|FRACTION",
        help="total parameters of all models, as a number such as 2000000 or as a fraction such "
        "as 0.2 of ONE dense multitask model",
    )
    text = "parameters that count: encoder_linear, encoder or total (default: %(default)s)"
    allocate.add_argument("--of", default="encoder_linear", help=text)
    allocate.add_argument(
        "--embeddings",
        choices=["own", "shared"],
        default="own",
        help="shared: count the embeddings of all single-task models once; needs runs with "
        "encoder.freeze_embeddings=true (default: %(default)s)",
    )
    _add_ignore(allocate)
    allocate.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the results as JSON"
    )
    allocate.set_defaults(command=_allocate)


def _allocate(options: argparse.Namespace) -> None:
    from multiprune.budget.budget import parse_budget
    from multiprune.cli.allocation_table import print_ensembles, write_ensembles
    from multiprune.report.ensembles import Request, best_ensembles
    from multiprune.runs.frame import read_runs

    request = Request(
        parse_budget(options.budget, of=options.of),
        shared_embeddings=options.embeddings == "shared",
    )
    ensembles = best_ensembles(read_runs(*options.runs), request, ignore=options.ignore)
    if options.json is not None:
        write_ensembles(ensembles, options.json)
    print_ensembles(ensembles)


def _add_report(commands: Commands) -> None:
    report = add_command(
        commands,
        "report",
        summary="Compare finished runs on one page with figures.",
        about="Compares runs and specialized models of one encoder: scores by pruner and size, "
        "multitask against the best ensemble of single-task models, where parameters are kept, "
        "and every run with its command. The page is one file and needs no network.",
        example="multiprune report runs --out report",
    )
    report.add_argument("runs", type=Path, nargs="+", help="folders to search for runs")
    report.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder that is new or holds a report (default: report for html; other formats are "
        "printed)",
    )
    text = "html, markdown, json or csv (runs only; default: %(default)s)"
    report.add_argument("--format", default="html", help=text)
    what = report.add_mutually_exclusive_group()
    what.add_argument(
        "--masks",
        action="store_true",
        help="also compare the masks of runs, between tasks and seeds",
    )
    what.add_argument(
        "--by-examples",
        action="store_true",
        help="compare single-task and multitask runs by the number of training examples of one "
        "task (data.cap)",
    )
    report.add_argument(
        "--wandb",
        metavar="ENTITY/PROJECT",
        help="save a W&B workspace for runs that were logged there, instead of a page",
    )
    report.add_argument(
        "--wandb-json",
        type=Path,
        metavar="FILE",
        help="with --wandb: write the workspace to a file",
    )
    _add_ignore(report)
    report.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> None:
    if options.wandb is not None or options.wandb_json is not None:
        _dashboard(options)
        return
    from multiprune.report.write import Report, check_request

    out = Path("report") if options.out is None and options.format == "html" else options.out
    check_request(options.format, out)
    report = Report.read(
        options.runs,
        ignore=options.ignore,
        masks=options.masks,
        by_examples=options.by_examples,
    )
    if out is None:
        print(printable(report.text(options.format)), end="")
    else:
        print(printable(f"{report.write(out, options.format)}: {report.summary}"))
    for one in report.skipped:
        print(printable(f"Skipped: {one.path}: {one.reason}"), file=sys.stderr)


def _dashboard(options: argparse.Namespace) -> None:
    from multiprune.runs.frame import read_runs
    from multiprune.tracking.dashboard import publish

    if options.wandb is None:
        raise ValueError("`--wandb-json` needs `--wandb ENTITY/PROJECT`.")
    print(publish(read_runs(*options.runs).finished, options.wandb, options.wandb_json))


def _add_status(commands: Commands) -> None:
    status = add_command(
        commands,
        "status",
        summary="Show progress and outcome of runs.",
        about="Shows state, step, density, score and remaining time of running and finished runs, "
        "from their folders alone. `lost` is a run whose process is gone although it recorded no "
        "end.",
        example="multiprune status runs/sparsity",
    )
    status.add_argument("runs", type=Path, nargs="+", help="folders to search for runs")
    status.add_argument(
        "--format", choices=["table", "json"], default="table", help="default: %(default)s"
    )
    text = "print the full reason and the folder of each failed job"
    status.add_argument("--reasons", action="store_true", help=text)
    status.set_defaults(command=_status)


def _status(options: argparse.Namespace) -> None:
    from multiprune.cli.job_table import print_jobs
    from multiprune.runs.atomic import leftovers
    from multiprune.runs.jobs import as_json, read_jobs

    jobs = read_jobs(*options.runs)
    for parent in dict.fromkeys([*options.runs, *(job.path for job in jobs)]):
        for one in leftovers(parent):
            print(
                printable(f"Incomplete file of a killed process: {one}; the next write to the ")
                + "same path removes it.",
                file=sys.stderr,
            )
    if options.format == "json":
        print(as_json(jobs), end="")
    else:
        print_jobs(jobs, reasons=options.reasons)


def _add_sync(commands: Commands) -> None:
    sync = add_command(
        commands,
        "sync",
        summary="Upload offline W&B runs.",
        about="Uploads each run once, in the order in which they were started.",
        example="multiprune sync runs --dry-run",
    )
    sync.add_argument("runs", type=Path, nargs="+", help="folders to search for runs")
    sync.add_argument("--dry-run", action="store_true", help="only list what would be uploaded")
    sync.set_defaults(command=_sync)


def _sync(options: argparse.Namespace) -> None:
    from multiprune.tracking.sync import sync

    sync(options.runs, dry_run=options.dry_run)


def _add_ignore(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ignore",
        nargs="+",
        default=[],
        metavar="KEY",
        help="config keys to ignore when grouping runs, such as trainer.max_epochs",
    )
