"""The command that predicts for texts, a line each."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.quiet import quiet_libraries

if TYPE_CHECKING:
    import argparse

    from multiprune.cli import Commands


def add_predict_command(commands: Commands) -> None:
    """Add ``predict``."""
    command = commands.add_parser(
        "predict",
        help="predict labels, numbers or spans for texts",
        description="Read texts from standard input, one a line, and write a JSON object a line: "
        "the label and the probability of each, several labels, a number, tags and spans, or an "
        "answer, as `multiprune.load(FOLDER).predict` gives them; of several tasks, an object by "
        "task. Tasks that read pairs expect both texts on a line with a tab between them. An empty "
        "line is an empty text, so that lines of input and output go together. Input of any length "
        "is read a part at a time.",
    )
    command.add_argument("folder", type=Path, help="folder of a run, or of an exported model")
    text = "tasks that predict, in one pass (default: all that read what is on the first line)"
    command.add_argument("--task", nargs="+", metavar="TASK", default=[], help=text)
    text = "read texts from this file instead"
    command.add_argument("--input", type=Path, metavar="FILE", help=text)
    text = "lines are JSON objects with the text columns of the tasks; a text whose words are "
    text += "tagged may be a list of words"
    command.add_argument("--json", action="store_true", help=text)
    add_loading(command)
    command.set_defaults(command=_predict)


def add_loading(command: argparse.ArgumentParser) -> None:
    """Add how a model is loaded and asked."""
    text = "texts of a batch (default: %(default)s)"
    command.add_argument("--batch-size", type=int, metavar="N", default=32, help=text)
    text = "that size of a run with pruner=dynamic_sparsification (default: its smallest)"
    command.add_argument("--density", type=float, metavar="D", help=text)
    text = "cpu or cuda (default: cuda where there is one)"
    command.add_argument("--device", metavar="NAME", help=text)


def _predict(options: argparse.Namespace) -> None:
    from multiprune.export.lines import predict_lines
    from multiprune.export.loading import load_on

    quiet_libraries()
    with ExitStack() as stack:
        lines = sys.stdin.buffer
        if options.input is not None:
            lines = stack.enter_context(options.input.open("rb"))
        model = load_on(options.folder, density=options.density, device=options.device)
        predicted = predict_lines(
            model, lines, options.task, are_json=options.json, batch_size=options.batch_size
        )
        for one in predicted:
            print(json.dumps(one))
