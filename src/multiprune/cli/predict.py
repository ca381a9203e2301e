"""``multiprune predict``: predict for texts, one per line."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.cli.command import add_command
from multiprune.quiet import quiet_libraries

if TYPE_CHECKING:
    import argparse

    from multiprune.cli.command import Commands


def add_predict_command(commands: Commands) -> None:
    """Add ``predict``."""
    command = add_command(
        commands,
        "predict",
        summary="Predict labels, numbers or spans for texts.",
        about="Reads texts from standard input, one per line, and writes one JSON object per line "
        "with what `multiprune.load(FOLDER).predict` returns: labels with probabilities, a number, "
        "tags and spans, or an answer; for several tasks, an object by task. Text pairs stand on "
        "one line, separated by a tab. An empty line is an empty text, so that line N of the "
        "output belongs to line N of the input. Input is streamed and may have any length.",
        example="multiprune predict my-model --task sentiment --input texts.txt",
    )
    command.add_argument("folder", type=Path, help="folder of a run, or of an exported model")
    text = "tasks to predict, in one pass (default: all whose inputs fit the first line)"
    command.add_argument("--task", nargs="+", metavar="TASK", default=[], help=text)
    text = "file to read texts from (default: standard input)"
    command.add_argument("--input", type=Path, metavar="FILE", help=text)
    text = "input lines are JSON objects with the text columns of the tasks; for tagging, a "
    text += "text may be a list of words"
    command.add_argument("--json", action="store_true", help=text)
    add_loading(command)
    command.set_defaults(command=_predict)


def add_loading(command: argparse.ArgumentParser) -> None:
    """Add options for loading and running a model."""
    text = "texts per batch (default: %(default)s)"
    command.add_argument("--batch-size", type=int, metavar="N", default=32, help=text)
    text = "density of a dynamic model, of pruner=dynamic_sparsification (default: its lowest)"
    command.add_argument("--density", type=float, metavar="D", help=text)
    text = "cpu or cuda (default: cuda if available)"
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
