"""The command that scores a model on labelled rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.cli.models import add_allow_targets, names
from multiprune.cli.predict import add_loading
from multiprune.quiet import quiet_libraries

if TYPE_CHECKING:
    import argparse

    from multiprune.cli import Commands


def add_evaluate_command(commands: Commands) -> None:
    """Add ``evaluate``."""
    command = commands.add_parser(
        "evaluate",
        help="score a model on labelled rows",
        description="Evaluate a run's model, or an exported one, on a file of labelled rows of one "
        "task, or, without a file, on the run's own validation or test data. The metrics are those "
        "of the run; of an exported model, those that are usual for such a task, unless --data-of "
        "names its run. For the same rows they are those that training reports.",
    )
    command.add_argument("folder", type=Path, help="folder of a run, or of an exported model")
    text = "labelled rows, a .csv, .tsv, .jsonl or .parquet file"
    command.add_argument("--data", type=Path, metavar="FILE", help=text)
    text = "the tasks (default: the only one, or without --data all that have rows)"
    command.add_argument("--task", nargs="+", metavar="TASK", default=[], help=text)
    text = "columns of the file that the task reads (default: those that the run has read)"
    command.add_argument("--text", nargs="+", metavar="COLUMN", help=text)
    text = "column of the file with the labels (default: that of the run)"
    command.add_argument("--label", metavar="COLUMN", help=text)
    text = "metrics of this package, such as accuracy,macro_f1"
    command.add_argument("--metric", type=names, metavar="NAME,NAME", default=[], help=text)
    text = "without --data: validation or test (default: validation)"
    command.add_argument("--split", choices=["validation", "test"], help=text)
    text = "the run that an exported model comes from, whose metrics and data are used"
    command.add_argument("--data-of", type=Path, metavar="RUN", help=text)
    text = "read data from this local mirror instead of the run's"
    command.add_argument("--mirror", metavar="DIR", help=text)
    add_allow_targets(command)
    add_loading(command)
    text = "write the numbers as JSON as well; without FILE, print them in place of the table"
    command.add_argument("--json", nargs="?", const="-", metavar="FILE", help=text)
    command.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from multiprune.cli.evaluation_table import (
        evaluations_json,
        print_evaluations,
        write_evaluations,
    )
    from multiprune.evaluate import EvaluationRequest, evaluate

    quiet_libraries()
    if options.data is not None and options.split is not None:
        raise ValueError("`--split` is of a run's own data: leave it out, or `--data`.")
    evaluations = evaluate(
        EvaluationRequest(
            folder=options.folder,
            data=options.data,
            split=options.split or "validation",
            tasks=options.task,
            text=options.text,
            label=options.label,
            metrics=options.metric,
            data_of=options.data_of,
            mirror=options.mirror,
            allow_targets=options.allow_targets,
            density=options.density,
            batch_size=options.batch_size,
            device=options.device,
        )
    )
    if options.json == "-":
        sys.stdout.write(evaluations_json(evaluations))
        return
    print_evaluations(evaluations)
    if options.json is not None:
        write_evaluations(evaluations, Path(options.json))
