"""The command line of ``multiprune``: commands for finished runs and exported models.

What a command needs is imported when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from typing_extensions import override

from multiprune import __version__
from multiprune.cli.command import command_list
from multiprune.cli.evaluate import add_evaluate_command
from multiprune.cli.models import add_model_commands
from multiprune.cli.predict import add_predict_command
from multiprune.cli.runs import add_run_commands
from multiprune.cli.specialize import add_specialize_command
from multiprune.cli.tokenizer import add_tokenizer_command
from multiprune.closed_pipe import ends_with_its_reader
from multiprune.cores import share_cores
from multiprune.message import first_line
from multiprune.quick_exit import exit_quickly
from multiprune.refusal import DEFECT, Refusal

GROUPS = {
    "train": ("status", "sync", "tokenizer"),
    "inspect": ("evaluate", "report", "allocate", "frontier", "benchmark"),
    "ship": ("export", "pack", "specialize", "predict"),
}

_EPILOG = """\

`python train.py task=mrpc` trains; `multiprune COMMAND --help` explains a command.

example:
  multiprune report runs"""


class Parser(argparse.ArgumentParser):
    """A parser that reports wrong arguments in one sentence, without the usage before it."""

    @override
    def error(self, message: str) -> NoReturn:
        refusal = Refusal(f"{message}: see `{self.prog} --help`.")
        refusal.say()
        raise refusal


def main(arguments: list[str] | None = None) -> None:
    """Run one command; wrong input ends it with one sentence."""
    with ends_with_its_reader():
        options = parser().parse_args(arguments)
        exit_quickly()
        share_cores()
        _run(options)


def _run(options: argparse.Namespace) -> None:
    try:
        options.command(options)
    except BrokenPipeError:
        raise
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        refusal = Refusal(first_line(error))
        refusal.say()
        raise refusal from error
    except Exception as error:
        error.add_note(DEFECT)
        raise


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser: argparse.ArgumentParser = Parser(
        prog="multiprune",
        usage="multiprune [-h] [--version] COMMAND ...",
        description="Evaluate, compare, export and run pruned models.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"multiprune {__version__}")
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", prog="multiprune", help=argparse.SUPPRESS
    )
    add_model_commands(commands)
    add_predict_command(commands)
    add_evaluate_command(commands)
    add_specialize_command(commands)
    add_tokenizer_command(commands)
    add_run_commands(commands)
    parser.epilog = f"{command_list(commands, GROUPS)}\n{_EPILOG}"
    return parser
