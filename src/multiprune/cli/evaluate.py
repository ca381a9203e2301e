"""``multiprune evaluate``: compute metrics of a model on labelled rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.cli.command import add_command
from multiprune.cli.models import add_allow_targets, names
from multiprune.cli.predict import add_loading
from multiprune.quiet import quiet_libraries

if TYPE_CHECKING:
    import argparse

    from multiprune.cli.command import Commands


def add_evaluate_command(commands: Commands) -> None:
    """Add ``evaluate``."""
    command = add_command(
        commands,
        "evaluate",
        summary="Compute a model's metrics on labelled rows.",
        about="The rows are those of a file, for one task, or the validation or test data of a "
        "run. The metrics are those of the run; of an exported model without --data-of, the "
        "defaults of its kind of task. For the same rows they equal those that training reports.",
        example="multiprune evaluate my-model --task mrpc --data rows.csv "
        "--text sentence1 sentence2 --label gold",
    )
    command.add_argument("folder", type=Path, help="folder of a run, or of an exported model")
    text = "labelled rows, a .csv, .tsv, .jsonl or .parquet file"
    command.add_argument("--data", type=Path, metavar="FILE", help=text)
    text = "tasks to evaluate (default: the only one; without --data all that have rows)"
    command.add_argument("--task", nargs="+", metavar="TASK", default=[], help=text)
    text = "text columns of the file (default: those of the run)"
    command.add_argument("--text", nargs="+", metavar="COLUMN", help=text)
    text = "label column of the file (default: that of the run)"
    command.add_argument("--label", metavar="COLUMN", help=text)
    text = "metrics of multiprune, such as accuracy,macro_f1 (default: those of the run)"
    command.add_argument("--metric", type=names, metavar="NAME,NAME", default=[], help=text)
    text = "split to evaluate without --data (default: validation)"
    command.add_argument("--split", choices=["validation", "test"], help=text)
    text = "run whose task and data configuration to use for an exported model"
    command.add_argument("--data-of", type=Path, metavar="RUN", help=text)
    text = "local mirror to read data from (default: that of the run)"
    command.add_argument("--mirror", metavar="DIR", help=text)
    add_allow_targets(command)
    add_loading(command)
    text = "also write the scores as JSON; without FILE, print JSON instead of the table"
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
        raise ValueError("Pass either `--data` or `--split`, not both.")
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
