"""The objects of one run, from a composed configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import LearningRateMonitor

from multiprune.models.text_to_text import multitask_model, tasks_for
from multiprune.outcome import is_job
from multiprune.pruning.settings import unknown_setting
from multiprune.report.records.lineage import lineage_of
from multiprune.training import Pruning
from multiprune.training.checkpoints import BestFinished, Last
from multiprune.training.module import MultitaskModule
from multiprune.training.retrieval import Retrieve
from multiprune.training.sandwich import trained_with
from multiprune.training.status import ReportStatus
from multiprune.training.stop import Stop
from multiprune.training.timing import Stopwatch

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig
    from pytorch_lightning.loggers.logger import Logger

    from multiprune.data.datamodule import MultitaskDataModule
    from multiprune.models.encoder import Encoder
    from multiprune.status import StatusFile
    from multiprune.tasks.task import Task
    from multiprune.training.distillation import Distillation
    from multiprune.training.give_up import GiveUp
    from multiprune.training.optim import AdamWRecipe


# Settings of the Trainer without which there is no training, or no score.
_AT_LEAST_ONCE = (
    "max_steps", "max_epochs", "accumulate_grad_batches", "limit_train_batches",
    "limit_val_batches", "val_check_interval", "check_val_every_n_epoch",
)  # fmt: skip

_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The objects of one run."""

    folder: Path
    tasks: dict[str, Task]
    data: MultitaskDataModule
    module: MultitaskModule
    pruning: Pruning
    best: BestFinished
    stopwatch: Stopwatch
    trainer: pl.Trainer
    lineage: list[dict[str, Any]]


def assemble(config: DictConfig, status: StatusFile) -> Experiment:
    """Build everything and read all data, so that wrong input shows before any training."""
    folder = status.folder
    if (folder / "results.json").exists():
        raise ValueError(f"A run needs a folder of its own, but {folder} holds a finished run.")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"`seed` must be from 0 to {2**32 - 1:,}, but is {config.seed}.")
    status.begin()
    # What is quick to check comes first, the data last.
    chosen = chosen_tasks(config)
    check_complete(config)
    pl.seed_everything(config.seed, verbose=False)
    loggers = list(instantiate(config.logger).values())
    recipe: AdamWRecipe = instantiate(config.optimizer, _convert_="all")
    distillation: Distillation = instantiate(config.distillation, _convert_="all")
    pruning = build_pruning(config)
    distillation = trained_with(distillation, pruning.pruner)
    stated: dict[str, Task] = dict(instantiate(chosen, _convert_="all"))
    encoder: Encoder = instantiate(config.encoder)
    tasks = tasks_for(encoder, stated)
    module = build_module(config, encoder, tasks, recipe, distillation)
    # Refuses what the optimizer does, before any data are read.
    recipe.build(module.model.encoder, module.model.heads, total_steps=1)
    pruning.prepare(module)
    # After the student: what it starts from does not depend on whether there is a teacher.
    distillation.prepare(encoder, tasks, max_length(config, encoder))
    data = build_data(config, encoder, tasks)
    optional = [*giving_up(config, pruning), *retrieving(config, encoder, data)]
    best, stopwatch = BestFinished(folder / "checkpoints", pruning), Stopwatch()
    callbacks = [pruning, stopwatch, best, *build_callbacks(config, status), *optional]
    return Experiment(
        folder=folder,
        tasks=tasks,
        data=data,
        module=module,
        pruning=pruning,
        best=best,
        stopwatch=stopwatch,
        trainer=build_trainer(config, folder, loggers, callbacks),
        # Now: who knows what becomes of that run until this one ends.
        lineage=lineage_of(config.encoder.get("path")),
    )


def check_complete(config: DictConfig) -> None:
    """Refuse a configuration that leaves a value open."""
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"A run needs a value of {', '.join(missing)}, but has none.")


def build_pruning(config: DictConfig) -> Pruning:
    """Build what is pruned, when, and how much."""
    check_open(config.pruner, "pruner", "budget")
    # Objects are passed to partials: Hydra would take dataclass instances for configuration.
    make_pruner = instantiate(config.pruner, _partial_=True, _convert_="all")
    budget = instantiate(config.budget)
    try:
        pruner = make_pruner(budget=budget)
    except TypeError as error:
        raise unknown_setting(make_pruner.func, make_pruner.keywords) or error from error
    return Pruning(
        pruner,
        instantiate(config.schedule),
        every_n_steps=config.rank_every_n_steps,
        encoder="model.encoder",
    )


def build_module(
    config: DictConfig,
    encoder: Encoder,
    tasks: dict[str, Task],
    recipe: AdamWRecipe,
    distillation: Distillation,
) -> MultitaskModule:
    """Build the model of the tasks, and what trains and evaluates it."""
    model = multitask_model(encoder, tasks)
    if config.compile is not None:
        check_backend(config.compile)
        # In place: names of weights stay, and layers that are cut later are compiled anew. Batches
        # differ in length.
        model.encoder.compile(backend=config.compile, dynamic=True)
    return MultitaskModule(
        model,
        tasks,
        recipe,
        distillation=distillation,
        seed=config.seed,
        config=plain(config),
    )


def check_backend(backend: str) -> None:
    """Refuse what ``torch.compile`` does not know."""
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise ValueError(f"`compile` must be one of {', '.join(known)}, but is {backend!r}.")


def build_data(config: DictConfig, encoder: Encoder, tasks: dict[str, Task]) -> MultitaskDataModule:
    """Build the data of the tasks, read and tokenized."""
    check_open(config.data, "data", "tasks", "tokenizer", "seed")
    data: MultitaskDataModule = instantiate(config.data, _partial_=True, _convert_="all")(
        tasks=tasks,
        tokenizer=encoder.tokenizer,
        max_length=max_length(config, encoder),
        seed=config.seed,
    )
    data.prepare_data()
    data.setup()
    return data


def max_length(config: DictConfig, encoder: Encoder) -> int:
    """Return how many tokens of an input are read: what is asked for, if the encoder can."""
    return int(min(config.data.max_length, encoder.max_length))


def build_callbacks(config: DictConfig, status: StatusFile) -> list[pl.Callback]:
    """Build what every run has and nothing else needs to know."""
    last = Last(status.folder / "checkpoints", every_n_steps=config.checkpoint.every_n_steps)
    rates = LearningRateMonitor(logging_interval="step")
    return [rates, last, Stop(last), ReportStatus(status)]


def build_trainer(
    config: DictConfig, folder: Path, loggers: list[Logger], callbacks: list[pl.Callback]
) -> pl.Trainer:
    """Build the Trainer: it must come to an end, evaluate, and be what the launcher can start."""
    check_open(config.trainer, "trainer", "default_root_dir", "logger", "callbacks")
    try:
        trainer: pl.Trainer = instantiate(config.trainer, _partial_=True)(
            default_root_dir=str(folder), logger=loggers, callbacks=callbacks
        )
    except MisconfigurationException as error:
        raise ValueError(f"`trainer` must suit this machine, but: {error}") from error
    check_trainer(trainer)
    check_processes(trainer)
    return trainer


def check_open(config: DictConfig, name: str, *taken: str) -> None:
    """Refuse settings that would have no effect, because the run makes them itself."""
    if given := sorted(set(config) & set(taken)):
        raise ValueError(
            f"`{name}.{given[0]}` must be left to the run, but is {config[given[0]]!r}."
        )


def check_trainer(trainer: pl.Trainer) -> None:
    """Refuse settings with which nothing would be trained, scored or kept."""
    if trainer.max_epochs in (None, -1) and trainer.max_steps == -1:
        raise ValueError(
            "Training must end, but neither `trainer.max_epochs` nor `trainer.max_steps` is set."
        )
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise ValueError(
            "A run must leave its files, but `trainer.fast_dev_run` prevents it; "
            "`trainer.max_steps` makes one short."
        )
    for name in _AT_LEAST_ONCE:
        if getattr(trainer, name) == 0:
            raise ValueError(
                f"A run must be trained, and scored on validation data, but `trainer.{name}` is 0."
            )
    clip = trainer.gradient_clip_val
    if clip is not None and clip < 0:
        raise ValueError(f"`trainer.gradient_clip_val` must be at least 0, but is {clip}.")
    if trainer.precision not in _PRECISIONS:
        raise ValueError(
            f"`trainer.precision` must be one of {', '.join(_PRECISIONS)}, which hold weights in "
            f"single precision, but is {trainer.precision}."
        )


def giving_up(config: DictConfig, pruning: Pruning) -> list[GiveUp]:
    """Return what ends a job that others have beaten, if that is asked for."""
    if config.give_up is None:
        return []
    if not is_job():
        raise ValueError("Only a job of a sweep can give up, but this is a run of its own.")
    give_up: GiveUp = instantiate(config.give_up)
    give_up.kept = pruning.pruner.budget.resolve(pruning.pruner.ledger())
    return [give_up]


def retrieving(config: DictConfig, encoder: Encoder, data: MultitaskDataModule) -> list[Retrieve]:
    """Return what evaluates the encoder beside the tasks, from which it must differ by name."""
    if config.retrieval is None:
        return []
    retrievals = dict(instantiate(config.retrieval, _convert_="all"))
    if same := sorted(set(retrievals) & set(config.task)):
        raise ValueError(f"`retrieval` must not be named as a task, but {', '.join(same)} is.")
    return [Retrieve(retrievals, encoder, mirror=data.mirror, max_length=data.max_length)]


def check_processes(trainer: pl.Trainer) -> None:
    """Refuse a job whose further processes would be started by repeating the launcher's command."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    is_started_here = environment is not None and not environment.creates_processes_externally
    launcher = HydraConfig.get().launcher._target_
    if is_job() and is_started_here and not launcher.endswith(".BasicLauncher"):
        raise ValueError(
            f"A job of {launcher.rpartition('.')[2]} is one process, but `trainer` asks for "
            f"{trainer.world_size}; hydra/launcher=basic can start them."
        )


def chosen_tasks(config: DictConfig) -> DictConfig:
    """Return the configuration of the tasks, of which there must be one or more, each once."""
    if OmegaConf.is_missing(config, "task") or not config.task:
        raise ValueError("A run needs at least one task, but `task` names none.")
    # Hydra merges a task that is chosen twice without a word.
    choices = [one for one in HydraConfig.get().overrides.task if one.startswith("task=[")]
    names = [
        name for one in choices for name in one[len("task=[") : -1].replace(" ", "").split(",")
    ]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"`task` must name each task once, but names {', '.join(sorted(repeated))} again."
        )
    return config.task  # type: ignore[no-any-return]


def plain(config: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain dictionaries and lists."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
