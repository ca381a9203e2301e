"""Commands that read folders of runs: allocate, report, status, sync."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.message import printable

if TYPE_CHECKING:
    import argparse

    from multiprune.cli import Commands


def add_run_commands(commands: Commands) -> None:
    """Add ``allocate``, ``report``, ``status`` and ``sync``."""
    _add_allocate(commands)
    _add_report(commands)
    _add_status(commands)
    _add_sync(commands)


def _add_allocate(commands: Commands) -> None:
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
        "trained with encoder.freeze_embeddings=true",
    )
    _add_ignore(allocate)
    allocate.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as well")
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
    report = commands.add_parser(
        "report",
        help="show finished runs as one page with figures",
        description="Compare finished runs of one encoder, and models that were cut out of one: "
        "which pruner scores what at which size, multitask against the best ensemble, where "
        "parameters are kept, and every run with its command. The page needs no network.",
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
        raise ValueError("`--wandb-json` needs `--wandb ENTITY/PROJECT` beside it.")
    print(publish(read_runs(*options.runs).finished, options.wandb, options.wandb_json))


def _add_status(commands: Commands) -> None:
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
    text = "print in full why jobs have failed, for each of them with its folder"
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
                printable(f"Left behind by a process that was killed: {one}; the next write into ")
                + "the same place removes it.",
                file=sys.stderr,
            )
    if options.format == "json":
        print(as_json(jobs), end="")
    else:
        print_jobs(jobs, reasons=options.reasons)


def _add_sync(commands: Commands) -> None:
    sync = commands.add_parser("sync", help="send offline W&B runs")
    sync.add_argument("runs", type=Path, nargs="+", help="folders of runs, searched through")
    sync.add_argument("--dry-run", action="store_true", help="only say what would be sent")
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
        help="settings that may differ within one method, such as trainer.max_epochs",
    )
