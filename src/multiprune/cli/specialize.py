"""The command that makes one task's own model, or one of a task and language."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from multiprune.quiet import quiet_libraries
from multiprune.specialize import CONF

if TYPE_CHECKING:
    from multiprune.cli import Commands

_DESCRIPTION = """\
Attribute the answers to a few training examples of one task to heads and neurons, remove what
contributes least, and write a physically smaller model with the head of that task alone, as Yang
et al. (2023) do. No weight is trained. Each task gets a folder in RUN/specialized, or by language
each task and language (TASK.LANGUAGE). With --classifier it is a classifier of transformers that is
cut, with its own head, for data in files, and `out` is what is written.

  multiprune specialize RUN budget.fraction=0.5 'tasks=[rte,mrpc]' labels=pseudo
"""


def add_specialize_command(commands: Commands) -> None:
    """Add ``specialize``."""
    command = commands.add_parser(
        "specialize",
        help="cut one task's own smaller model out of a multitask model, or a smaller classifier "
        "out of any, without training",
        description=_DESCRIPTION,
        epilog=_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    text = (
        "folder of a run, or of an exported model; a name on the hub, or a folder, of a classifier"
    )
    command.add_argument("model", metavar="RUN_OR_MODEL", help=text)
    text = "settings, as below; written as for train.py"
    command.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=text)
    text = "RUN_OR_MODEL is a classifier of transformers"
    command.add_argument("--classifier", action="store_true", help=text)
    command.set_defaults(command=_specialize)


def _settings() -> str:
    """Return what there is to set, as its files say, but for which of them extend which."""
    texts = [
        (CONF / f"{name}.yaml").read_text() for name in ("budget", "run", "classifier", "recipe")
    ]
    parts = [text.partition("defaults:\n")[::2] for text in texts]
    return "\n".join(head + rest.rpartition("  - _self_\n")[2] for head, rest in parts)


def _specialize(options: argparse.Namespace) -> None:
    from multiprune.specialize.application import composed, made
    from multiprune.specialize.table import print_outcomes

    quiet_libraries()
    settings = composed("classifier" if options.classifier else "run", options.settings)
    recipe, outcomes = made(options.model, settings, classifier=options.classifier)
    finished = []
    for outcome in outcomes:
        finished.append(outcome)
        if outcome.warning is not None:
            of = f"{outcome.task} in {outcome.language}" if outcome.language else outcome.task
            print(f"warning: {of}: {outcome.warning}", file=sys.stderr)
    print_outcomes(recipe, finished)
    for outcome in finished:
        print(f"{outcome.folder}: {outcome.seconds:.1f} s")
