"""The command that makes one task's own model, or one of a task and language."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.cli.models import add_allow_targets
from multiprune.quiet import quiet_libraries

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from multiprune.cli import Commands
    from multiprune.specialize.specialize import Manner, Outcome


def add_specialize_command(commands: Commands) -> None:
    """Add ``specialize``."""
    command = commands.add_parser(
        "specialize",
        help="cut one task's own smaller model out of a multitask model, or a smaller classifier "
        "out of any, without training",
        description="Attribute the answers to a few training examples of one task to heads and "
        "neurons, remove what contributes least, and write a physically smaller model with the "
        "head of that task alone, as Yang et al. (2023) do. No weight is trained. Each task gets a "
        "folder in DIR, or by language each task and language (TASK.LANGUAGE). With --model it is "
        "a classifier of transformers that is cut, with its own head, for data in files; "
        "DIR is then what is written.",
    )
    text = "folder of a run, or of an exported model"
    command.add_argument("run", type=Path, nargs="?", help=text)
    which = command.add_mutually_exclusive_group()
    which.add_argument("--task", nargs="+", metavar="TASK", help="tasks of the run")
    which.add_argument("--all", action="store_true", help="each task of the run")
    languages = command.add_mutually_exclusive_group()
    text = "a model for each language that a task has training rows in, for and from those alone"
    languages.add_argument("--by-language", action="store_true", help=text)
    text = "a model for each of these languages (default: one model a task, for all its languages)"
    languages.add_argument("--language", nargs="+", metavar="LANGUAGE", help=text)
    command.add_argument("--out", type=Path, metavar="DIR", help="(default: RUN/specialized)")
    _add_classifier(command)
    _add_budget(command)
    _add_examples(command)
    _add_method(command)
    _add_repair(command)
    command.set_defaults(command=_specialize)


def _add_classifier(command: argparse.ArgumentParser) -> None:
    text = "instead of a run: a classifier of the Hugging Face hub, or a folder of one"
    command.add_argument("--model", metavar="NAME", help=text)
    text = "its training data, a .csv, .tsv, .jsonl or .parquet file"
    command.add_argument("--data", type=Path, metavar="FILE", help=text)
    text = "its validation data; no scores are measured without"
    command.add_argument("--validation", type=Path, metavar="FILE", help=text)
    text = "columns that it reads, one or two"
    command.add_argument("--text", nargs="+", metavar="COLUMN", help=text)
    text = "column of its classes, by number or by name"
    command.add_argument("--label", metavar="COLUMN", help=text)


def _add_budget(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--budget",
        required=True,
        metavar="fraction=F|count=N",
        help="what may stay of the model as it is; a bare whole number is a count, any other a "
        "fraction",
    )
    command.add_argument("--of", default="encoder_linear", help="encoder_linear, encoder or total")
    command.add_argument(
        "--granularity",
        default="heads,neurons",
        metavar="KIND,KIND",
        help="what goes as a whole: heads, head_dimensions, neurons, layers (default: %(default)s)",
    )
    text = "prune in N steps, and rank anew before each (default: %(default)s)"
    command.add_argument("--rounds", type=int, default=1, metavar="N", help=text)


def _add_examples(command: argparse.ArgumentParser) -> None:
    text = "training examples of the task (default: %(default)s)"
    command.add_argument("--examples", type=int, default=100, metavar="N", help=text)
    text = "gold, or pseudo: what the model itself answers (default: %(default)s)"
    command.add_argument("--labels", default="gold", help=text)
    text = "weigh each example by the probability of its label"
    command.add_argument("--weight-by-confidence", action="store_true", help=text)
    text = "of the examples that are drawn (default: %(default)s)"
    command.add_argument("--seed", type=int, default=0, metavar="N", help=text)
    text = "the run that an exported model comes from: it says what tasks read"
    command.add_argument("--data-of", type=Path, metavar="RUN", help=text)
    text = "read data from this local mirror, if it is no longer where the run had it"
    command.add_argument("--mirror", metavar="DIR", help=text)
    add_allow_targets(command)
    text = "measure no scores on validation data"
    command.add_argument("--no-evaluation", action="store_true", help=text)


def _add_method(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--method",
        default="fisher",
        help="fisher (information of gates, Kwon et al. 2022: measured best), attribution "
        "(activation times gradient, Yang et al. 2023), integrated-gradients, taylor, "
        "activation-norm, magnitude or random (default: %(default)s)",
    )
    command.add_argument(
        "--at",
        choices=["outputs", "gates"],
        help="what is attributed to: outputs of linear layers, as in the paper, or what the output "
        "projections read (default: outputs for attribution, gates for others)",
    )
    text = "how the tokens of an example become one number, for attribution (default: %(default)s)"
    command.add_argument("--tokens", choices=["max", "sum", "mean"], default="max", help=text)
    text = "for attribution: what speaks against an answer counts like what speaks for it"
    command.add_argument("--absolute", action="store_true", help=text)
    text = "of the path, for integrated-gradients (default: %(default)s)"
    command.add_argument("--steps", type=int, default=8, metavar="N", help=text)
    command.add_argument(
        "--rank",
        choices=["together", "by-module"],
        help="all units together, per parameter they cost, or against those of their kind and "
        "layer (default: together for integrated-gradients, fisher and taylor, else by-module)",
    )


def _add_repair(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--repair",
        choices=["none", "rescale"],
        default="none",
        help="rescale heads and neurons that are left, by least squares, so that layers do what "
        "they did (default: %(default)s)",
    )


def _specialize(options: argparse.Namespace) -> None:
    from multiprune.budget.budget import parse_budget
    from multiprune.specialize.calibration_set import Draw
    from multiprune.specialize.methods import Choice
    from multiprune.specialize.specialist import Recipe
    from multiprune.specialize.specialize import Manner
    from multiprune.specialize.table import print_outcomes

    quiet_libraries()
    _check_what(options)
    choice = Choice(
        seed=options.seed,
        at=options.at,
        tokens=options.tokens,
        absolute=options.absolute,
        steps=options.steps,
    )
    recipe = Recipe(
        budget=parse_budget(options.budget, of=options.of),
        method=options.method,
        choice=choice,
        granularity=options.granularity.split(","),
        relative=None if options.rank is None else options.rank == "by-module",
        rounds=options.rounds,
        repair=options.repair,
    )
    draw = Draw(
        examples=options.examples,
        labels=options.labels,
        weight_by_confidence=options.weight_by_confidence,
        seed=options.seed,
    )
    manner = Manner(recipe=recipe, draw=draw, evaluate=not options.no_evaluation)
    outcomes = []
    for outcome in _outcomes(options, manner):
        outcomes.append(outcome)
        if outcome.warning is not None:
            of = f"{outcome.task} in {outcome.language}" if outcome.language else outcome.task
            print(f"warning: {of}: {outcome.warning}", file=sys.stderr)
    print_outcomes(manner, outcomes)
    for outcome in outcomes:
        print(f"{outcome.folder}: {outcome.seconds:.1f} s")


def _check_what(options: argparse.Namespace) -> None:
    """Refuse anything but a run with its options, or a classifier with its own."""
    names = ("task", "all", "by_language", "language", "data_of", "mirror", "allow_targets")
    of_run = {name: getattr(options, name) for name in names}
    needed = {name: getattr(options, name) for name in ("data", "text", "label", "out")}
    of_model = {name: needed[name] for name in ("data", "text", "label")}
    if (options.run is None) == (options.model is None):
        both = "both" if options.model else "neither"
        raise ValueError(f"Either a run or `--model` must be given, but {both} is.")
    wrong = of_run if options.run is None else of_model | {"validation": options.validation}
    if given := [_flag(name) for name, value in wrong.items() if value]:
        belongs, other = ("a run", "`--model`") if options.model else ("`--model`", "a run")
        raise ValueError(f"{', '.join(given)} must go with {belongs}, but {other} is given.")
    if options.model is None and not options.task and not options.all:
        raise ValueError("`--task` or `--all` must say what of a run is made, but neither does.")
    if options.model and (missing := [_flag(name) for name, value in needed.items() if not value]):
        raise ValueError(f"`--model` needs {', '.join(missing)} as well, but that is not given.")


def _flag(name: str) -> str:
    return f"`--{name.replace('_', '-')}`"


def _outcomes(options: argparse.Namespace, manner: Manner) -> Iterator[Outcome]:
    from multiprune.specialize.classifier import ClassifierRequest, specialize_classifier
    from multiprune.specialize.specialize import Request, specialize

    if options.model is None:
        request = Request(
            run=options.run,
            tasks=[] if options.all else options.task,
            out=options.out or options.run / "specialized",
            manner=manner,
            languages=[] if options.by_language else options.language,
            data_of=options.data_of,
            mirror=options.mirror,
            allow_targets=options.allow_targets,
        )
        yield from specialize(request)
        return
    yield specialize_classifier(
        ClassifierRequest(
            model=options.model,
            data=options.data,
            validation=options.validation,
            text=options.text,
            label=options.label,
            out=options.out,
            manner=manner,
        )
    )
