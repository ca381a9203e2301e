"""Build the objects of a run from its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

from multiprune.arguments import check_is
from multiprune.config import built
from multiprune.config_errors import call_sentence
from multiprune.data.read_labels import with_labels
from multiprune.message import first_line
from multiprune.models.encoder import Encoder
from multiprune.models.factory import multitask_model, tasks_for
from multiprune.outcome import is_job
from multiprune.pruning.settings import unknown_setting
from multiprune.redact import redacted
from multiprune.runs.lineage import lineage_of
from multiprune.tasks.scores import check_metrics
from multiprune.training import Pruning
from multiprune.training.checkpoints import BestFinished, Last
from multiprune.training.curves import Curves
from multiprune.training.module import MultitaskModule
from multiprune.training.retrieval import Retrieve
from multiprune.training.sandwich import trained_with
from multiprune.training.status import ReportStatus
from multiprune.training.stop import Stop
from multiprune.training.timing import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytorch_lightning.strategies import Strategy

    from multiprune.data.datamodule import MultitaskDataModule
    from multiprune.runs.record import EarlierRun
    from multiprune.runs.status import StatusFile
    from multiprune.tasks.task import Task
    from multiprune.training.give_up import GiveUp
    from multiprune.training.objective import Objective
    from multiprune.training.optim import AdamWRecipe


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The objects of one run, and its configuration without secrets: what it leaves behind."""

    folder: Path
    config: Mapping[str, Any]
    tasks: dict[str, Task]
    data: MultitaskDataModule
    module: MultitaskModule
    pruning: Pruning
    best: BestFinished
    stopwatch: Stopwatch
    trainer: pl.Trainer
    lineage: list[EarlierRun]


def assemble(config: Mapping[str, Any], status: StatusFile) -> Experiment:
    """Build everything and read all data, so that wrong input shows before any training."""
    folder = status.folder
    status.begin()
    # What is quick to check comes first, the data last.
    pl.seed_everything(config["seed"], verbose=False)
    loggers = build_loggers(config)
    recipe: AdamWRecipe = built(config, "optimizer", _convert_="all")
    objective: Objective = built(config, "distillation", _convert_="all")
    pruning = build_pruning(config)
    objective = trained_with(objective, pruning)
    stated = build_tasks(config)
    encoder: Encoder = built(config, "encoder")
    check_is(Encoder, "what multiprune.models.encoder.pretrained returns", encoder=encoder)
    tasks = tasks_for(encoder, stated)
    module = build_module(config, encoder, tasks, recipe, objective)
    # Refuses what the optimizer does, before any data are read.
    recipe.build(module.model.encoder, module.model.heads, total_steps=1)
    pruning.prepare(module)
    # After the student: what it starts from does not depend on whether there is a teacher.
    objective.prepare(encoder, tasks, max_length(config, encoder))
    optional = [*giving_up(config, pruning), *retrieving(config, encoder)]
    best, stopwatch = BestFinished(folder / "checkpoints", pruning), Stopwatch()
    callbacks = [pruning, stopwatch, best, *build_callbacks(config, status), *optional]
    trainer = build_trainer(config, folder, loggers, callbacks)
    data = build_data(config, encoder, tasks)
    return Experiment(
        folder=folder,
        config=redacted(config),
        tasks=tasks,
        data=data,
        module=module,
        pruning=pruning,
        best=best,
        stopwatch=stopwatch,
        trainer=trainer,
        # Now: who knows what becomes of that run until this one ends.
        lineage=lineage_of(config["encoder"].get("path")),
    )


def build_loggers(config: Mapping[str, Any]) -> list[Logger]:
    """Build what metrics are written to."""
    named = dict(built(config, "logger"))
    example = "multiprune.tracking.csv.MetricsCsv"
    check_is(Logger, example, **{f"logger.{name}": one for name, one in named.items()})
    return list(named.values())


def build_tasks(config: Mapping[str, Any]) -> dict[str, Task]:
    """Build the tasks, read the labels of those that do not name them, and check the metrics."""
    mirror = config["data"].get("mirror")
    tasks = with_labels(
        dict(built(config, "task", _convert_="all")),
        mirror=None if mirror is None else Path(mirror),
        language=config["data"].get("language"),
    )
    check_metrics(tasks)
    return tasks


def build_pruning(config: Mapping[str, Any]) -> Pruning:
    """Build what is pruned, when, and how much."""
    # Objects are passed to partials: Hydra would take dataclass instances for configuration.
    make_pruner = built(config, "pruner", _partial_=True, _convert_="all")
    budget = built(config, "budget")
    try:
        pruner = make_pruner(budget=budget)
    except TypeError as error:
        raise unknown_setting(make_pruner.func, make_pruner.keywords) or error from error
    return Pruning(
        pruner,
        built(config, "schedule"),
        every_n_steps=config["rank_every_n_steps"],
        encoder="model.encoder",
    )


def build_module(
    config: Mapping[str, Any],
    encoder: Encoder,
    tasks: dict[str, Task],
    recipe: AdamWRecipe,
    objective: Objective,
) -> MultitaskModule:
    """Build the model of the tasks, and what trains and evaluates it."""
    model = multitask_model(encoder, tasks)
    if (backend := config["compile"]) is not None:
        check_backend(backend)
        # In place: names of weights stay, and layers that are cut later are compiled anew. Batches
        # differ in length.
        model.encoder.compile(backend=backend, dynamic=True)
    return MultitaskModule(
        model,
        tasks,
        recipe,
        objective=objective,
        seed=config["seed"],
        config=redacted(config),
    )


def check_backend(backend: str) -> None:
    """Refuse what ``torch.compile`` does not know."""
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise ValueError(f"`compile` must be one of {', '.join(known)}, but is {backend!r}.")


def build_data(
    config: Mapping[str, Any], encoder: Encoder, tasks: dict[str, Task]
) -> MultitaskDataModule:
    """Build the data of the tasks, read and tokenized."""
    make_data = built(config, "data", _partial_=True, _convert_="all")
    try:
        data: MultitaskDataModule = make_data(
            tasks=tasks,
            tokenizer=encoder.tokenizer,
            max_length=max_length(config, encoder),
            seed=config["seed"],
        )
    except TypeError as error:
        raise TypeError(call_sentence(error, "data")) from error
    data.prepare_data()
    data.setup()
    return data


def max_length(config: Mapping[str, Any], encoder: Encoder) -> int:
    """Return how many tokens of an input are read: what is asked for, if the encoder can."""
    return int(min(config["data"]["max_length"], encoder.max_length))


def build_callbacks(config: Mapping[str, Any], status: StatusFile) -> list[pl.Callback]:
    """Build what every run has and nothing else needs to know."""
    last = Last(status.folder / "checkpoints", every_n_steps=config["checkpoint"]["every_n_steps"])
    rates = LearningRateMonitor(logging_interval="step")
    return [rates, Curves(), last, Stop(last), ReportStatus(status)]


def build_trainer(
    config: Mapping[str, Any], folder: Path, loggers: list[Logger], callbacks: list[pl.Callback]
) -> pl.Trainer:
    """Build the Trainer, which must be what the launcher can start."""
    try:
        trainer: pl.Trainer = built(config, "trainer", _partial_=True)(
            default_root_dir=str(folder), logger=loggers, callbacks=callbacks
        )
    except (MisconfigurationException, ImportError, ValueError, TypeError) as error:
        if (said := call_sentence(error, "trainer")) == first_line(error):
            said = f"`trainer` must suit this machine, but: {said}"
        raise ValueError(said) from error
    check_strategy(trainer.strategy)
    check_processes(trainer)
    return trainer


def check_strategy(strategy: Strategy) -> None:
    """Refuse ways to train that do not leave each process a whole model, or its unused heads.

    Raises:
        ValueError: unless one device trains, or DDP with processes of their own.
    """
    if isinstance(strategy, SingleDeviceStrategy):
        return
    if not isinstance(strategy, DDPStrategy):
        raise ValueError(
            "`trainer.strategy` must be ddp_find_unused_parameters_true or one device, as every "
            f"process prunes the whole model, but is {type(strategy).__name__}: use trainer=ddp."
        )
    if strategy._start_method != "popen":
        raise ValueError(
            f"`trainer.strategy` with start method {strategy._start_method!r} is not "
            "supported: use trainer=ddp."
        )
    if not strategy._ddp_kwargs.get("find_unused_parameters"):
        raise ValueError(
            "`trainer.strategy` must be ddp_find_unused_parameters_true, because a batch of "
            "one task leaves the heads of others unused: use trainer=ddp."
        )


def giving_up(config: Mapping[str, Any], pruning: Pruning) -> list[GiveUp]:
    """Return what ends a job that others have beaten, if that is asked for."""
    if config["give_up"] is None:
        return []
    if not is_job():
        raise ValueError("`give_up` needs a sweep (--multirun), but this is a single run.")
    give_up: GiveUp = built(config, "give_up")
    give_up.kept = pruning.pruner.budget.resolve(pruning.pruner.ledger())
    return [give_up]


def retrieving(config: Mapping[str, Any], encoder: Encoder) -> list[Retrieve]:
    """Return what evaluates the encoder beside the tasks, from which it must differ by name."""
    if config["retrieval"] is None:
        return []
    retrievals = dict(built(config, "retrieval", _convert_="all"))
    if same := sorted(set(retrievals) & set(config["task"])):
        raise ValueError(
            f"`retrieval` and `task` must have different names, but share {', '.join(same)}."
        )
    mirror = config["data"].get("mirror")
    return [
        Retrieve(
            retrievals,
            encoder,
            mirror=None if mirror is None else Path(mirror),
            max_length=max_length(config, encoder),
        )
    ]


def check_processes(trainer: pl.Trainer) -> None:
    """Refuse a job whose further processes would be started by repeating the launcher's command."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    is_started_here = environment is not None and not environment.creates_processes_externally
    launcher = HydraConfig.get().launcher._target_
    if (
        is_job()
        and is_started_here
        and not launcher.endswith((".BasicLauncher", ".SequentialLauncher"))
    ):
        raise ValueError(
            f"A job of {launcher.rpartition('.')[2]} is one process, but `trainer` asks for "
            f"{trainer.world_size}; hydra/launcher=sequential can start them."
        )
