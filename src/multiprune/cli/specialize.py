"""``multiprune specialize``: extract a model of one task, or of one task and language."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from multiprune.cli.command import add_command
from multiprune.quiet import quiet_libraries
from multiprune.specialize import CONF

if TYPE_CHECKING:
    import argparse

    from multiprune.cli.command import Commands


def add_specialize_command(commands: Commands) -> None:
    """Add ``specialize``."""
    command = add_command(
        commands,
        "specialize",
        summary="Extract a smaller single-task model (no training).",
        about="Attributes the predictions for a few training examples of a task to heads and "
        "neurons, removes those that contribute least, and writes a physically smaller model with "
        "the head of that task (Yang et al., 2023). Each task, or each task and language, gets a "
        "folder in RUN/specialized. With --classifier the model is a sequence classifier of "
        "transformers, the data are files, and `out` is the folder to write.",
        notes=_settings(),
        example="multiprune specialize RUN budget.fraction=0.5 'tasks=[rte,mrpc]' labels=pseudo",
    )
    text = "folder of a run or of an exported model; with --classifier, a folder or hub name"
    command.add_argument("model", metavar="RUN_OR_MODEL", help=text)
    text = "settings listed below, in Hydra's override syntax"
    command.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=text)
    text = "RUN_OR_MODEL is a sequence classifier of transformers"
    command.add_argument("--classifier", action="store_true", help=text)
    command.set_defaults(command=_specialize)


def _settings() -> str:
    """Return the YAML files of settings, with comments and without defaults lists."""
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
