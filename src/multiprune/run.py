"""One run, from a composed configuration to a folder of results. Reads top to bottom."""

from __future__ import annotations

import gc
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.utilities import rank_zero_only

from multiprune.export.checkpoint import save_model
from multiprune.models.text_to_text import multitask_model, tasks_for
from multiprune.naming import describe
from multiprune.outcome import (
    discard_empty_run,
    ended_by_sigterm,
    is_job,
    refusal,
    reported,
    sentence,
)
from multiprune.pruning.fingerprint import mask_digest
from multiprune.quiet import quiet_libraries
from multiprune.report.masks import write_masks
from multiprune.report.outcome import density_map, summary
from multiprune.report.predictions import write_predictions
from multiprune.report.results import Results, is_finished, read_score, scores_by_task
from multiprune.report.summary import print_summary
from multiprune.status import StatusFile
from multiprune.training import Pruning
from multiprune.training.checkpoints import BestFinished, Last, checkpoint_to_continue
from multiprune.training.examples import worst_examples
from multiprune.training.module import MultitaskModule, ResumeError
from multiprune.training.retrieval import Retrieve
from multiprune.training.status import ReportStatus
from multiprune.training.stop import Stop
from multiprune.training.timing import Stopwatch
from multiprune.training.tracking import Outcome, Table, conclude, tracked

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pytorch_lightning.loggers.logger import Logger

    from multiprune.data.datamodule import MultitaskDataModule
    from multiprune.models.encoder import Encoder
    from multiprune.tasks.task import Task
    from multiprune.training.distillation import Distillation
    from multiprune.training.give_up import GiveUp


log = logging.getLogger(__name__)


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


def run(config: DictConfig) -> float:
    """Train, prune and evaluate what ``config`` describes; return the score on validation data.

    Writes ``results.json``, ``metrics.csv``, ``predictions.safetensors``, ``masks.safetensors``,
    ``checkpoints/`` and ``model/`` into Hydra's output folder, and ``status.json`` while it goes
    on. If that holds ``checkpoints/last.ckpt`` of an unfinished run, continues that run. Wrong
    input ends a single run with one sentence (``HYDRA_FULL_ERROR=1`` shows where it came from), and
    leaves no folder behind. A job of a sweep that is finished, with the same configuration, is not
    run again.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    if is_job() and is_finished(folder, plain(config)):
        log.info("%s is finished already.", folder)
        return read_score(folder)
    # A Trainer and its module refer to each other, and Python rarely looks for such circles: the
    # models of a sweep's earlier jobs would stay in memory.
    gc.collect()
    quiet_libraries()
    quiet_lightning()
    # Set by Lightning, from what a launcher of several processes says of this one.
    is_first: bool = getattr(rank_zero_only, "rank", 0) == 0
    status = StatusFile(folder, writes=is_first)
    with reported(status), ended_by_sigterm():
        experiment = prepare(config, status)
        with tracked(experiment.trainer.loggers, describe(plain(config), folder)):
            train(experiment)
            results = finish(experiment, config)
        status.end(
            "finished",
            score=results.score,
            density=results.budget["kept"] / results.budget["dense"],
        )
    if experiment.trainer.is_global_zero:
        print_summary(results, folder)
    return results.score


def prepare(config: DictConfig, status: StatusFile) -> Experiment:
    """Assemble what ``config`` describes, or refuse it."""
    try:
        return assemble(config, status)
    except (ValueError, TypeError, OSError, HydraException) as error:
        status.end("failed", reason=sentence(error))
        if not is_job():
            rank_zero_only(discard_empty_run)(status.folder)
        raise refusal(error) from error


def train(experiment: Experiment) -> None:
    """Train from the beginning, or from where the run in this folder was stopped."""
    try:
        checkpoint = checkpoint_to_continue(experiment.folder / "checkpoints")
        experiment.trainer.fit(
            experiment.module, experiment.data, ckpt_path=checkpoint, weights_only=False
        )
    except (ResumeError, FloatingPointError) as error:
        raise refusal(error) from error


def assemble(config: DictConfig, status: StatusFile) -> Experiment:
    """Build everything and read all data, so that wrong input shows before any training."""
    folder = status.folder
    if (folder / "results.json").exists():
        raise ValueError(f"A run needs a folder of its own, but {folder} holds a finished run.")
    status.begin()
    chosen = chosen_tasks(config)
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"A run needs a value of {', '.join(missing)}, but has none.")
    pl.seed_everything(config.seed, verbose=False)
    # What is quick to check comes first, the data last.
    loggers = list(instantiate(config.logger).values())
    recipe = instantiate(config.optimizer, _convert_="all")
    distillation: Distillation = instantiate(config.distillation, _convert_="all")
    # Objects are passed to partials: Hydra would take dataclass instances for configuration.
    pruning = Pruning(
        instantiate(config.pruner, _partial_=True, _convert_="all")(
            budget=instantiate(config.budget)
        ),
        instantiate(config.schedule),
        every_n_steps=config.rank_every_n_steps,
        encoder="model.encoder",
    )
    stated: dict[str, Task] = dict(instantiate(chosen, _convert_="all"))
    encoder = instantiate(config.encoder)
    tasks = tasks_for(encoder, stated)
    model = multitask_model(encoder, tasks)
    module = MultitaskModule(
        model,
        tasks,
        recipe,
        distillation=distillation,
        seed=config.seed,
        config=plain(config),
    )
    pruning.prepare(module)
    max_length = min(config.data.max_length, encoder.max_length)
    # After the student: what it starts from does not depend on whether there is a teacher.
    distillation.prepare(encoder, tasks, max_length)
    data: MultitaskDataModule = instantiate(config.data, _partial_=True, _convert_="all")(
        tasks=tasks,
        tokenizer=encoder.tokenizer,
        max_length=max_length,
        seed=config.seed,
    )
    data.prepare_data()
    data.setup()
    give_up = [] if config.give_up is None else [giving_up(config, pruning)]
    retrieve = [] if config.retrieval is None else [retrieving(config, encoder, data)]
    best = BestFinished(folder / "checkpoints", pruning)
    stopwatch = Stopwatch()
    last = Last(folder / "checkpoints", every_n_steps=config.checkpoint.every_n_steps)
    rates = LearningRateMonitor(logging_interval="step")
    callbacks = [pruning, stopwatch, rates, best, last, Stop(last), ReportStatus(status)]
    callbacks += [*give_up, *retrieve]
    return Experiment(
        folder=folder,
        tasks=tasks,
        data=data,
        module=module,
        pruning=pruning,
        best=best,
        stopwatch=stopwatch,
        trainer=build_trainer(config, folder, loggers, callbacks),
    )


def build_trainer(
    config: DictConfig, folder: Path, loggers: list[Logger], callbacks: list[pl.Callback]
) -> pl.Trainer:
    """Build the Trainer, which must come to an end, and be what the launcher can start."""
    trainer: pl.Trainer = instantiate(config.trainer, _partial_=True)(
        default_root_dir=str(folder), logger=loggers, callbacks=callbacks
    )
    if trainer.max_epochs == -1 and trainer.max_steps == -1:
        raise ValueError(
            "Training must end, but neither `trainer.max_epochs` nor `trainer.max_steps` is set."
        )
    check_processes(trainer)
    return trainer


def giving_up(config: DictConfig, pruning: Pruning) -> GiveUp:
    """Return what ends a job that others have beaten."""
    if not is_job():
        raise ValueError("Only a job of a sweep can give up, but this is a run of its own.")
    give_up: GiveUp = instantiate(config.give_up)
    give_up.kept = pruning.pruner.budget.resolve(pruning.pruner.ledger())
    return give_up


def retrieving(config: DictConfig, encoder: Encoder, data: MultitaskDataModule) -> Retrieve:
    """Return what evaluates the encoder beside the tasks, from which it must differ by name."""
    retrievals = dict(instantiate(config.retrieval, _convert_="all"))
    if same := sorted(set(retrievals) & set(config.task)):
        raise ValueError(f"`retrieval` must not be named as a task, but {', '.join(same)} is.")
    return Retrieve(retrievals, encoder, mirror=data.mirror, max_length=data.max_length)


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


def finish(experiment: Experiment, config: DictConfig) -> Results:
    """Take the best weights that meet the budget, make the pruning permanent, evaluate, write."""
    trainer, module, pruner = experiment.trainer, experiment.module, experiment.pruning.pruner
    steps = trainer.global_step
    if not experiment.pruning.finished:
        raise RuntimeError(
            f"Training must go on until the pruning schedule ends, but stopped at step {steps}."
        )
    # Training that ends within its first epoch is not evaluated before its end.
    if best := experiment.best.best_model_path:
        module.load_state_dict(torch.load(best, map_location="cpu")["state_dict"])
    densities = experiment.pruning.densities()
    pruner.finalize()
    budget = met_budget(experiment)
    trainer.validate(module, experiment.data, verbose=False)
    validation = dict(trainer.callback_metrics)
    test: dict[str, Any] = {}
    if experiment.data.test_dataloader():
        trainer.test(module, experiment.data, verbose=False)
        test = dict(trainer.callback_metrics)
    results = Results(
        score=float(validation["val/score"]),
        validation=scores_by_task(validation, "val"),
        # Retrieval is evaluated whether or not a task has test data.
        test=scores_by_task(validation | test, "test"),
        budget=budget,
        ledger=pruner.ledger().rows(),
        density={k.removeprefix("density/"): v for k, v in densities.items() if "/" in k},
        mask_sha256=mask_digest(pruner.masks()),
        examples=experiment.data.examples,
        truncated={name: one.truncated for name, one in experiment.data.encoded.items()},
        steps=steps,
        wall_seconds=experiment.stopwatch.wall_seconds,
        seconds_per_step=experiment.stopwatch.seconds_per_step,
        seed=config.seed,
        config=plain(config),
    )
    write(experiment, results)
    return results


def met_budget(experiment: Experiment) -> dict[str, Any]:
    """Return what was asked for and what was kept, which must not be more."""
    pruner = experiment.pruning.pruner
    ledger, budget = pruner.ledger(), pruner.budget
    asked, kept = budget.resolve(ledger), ledger.kept_in(budget.of)
    if kept > asked:
        raise RuntimeError(
            f"The model must keep at most {asked:,} parameters ({budget.of}), but keeps {kept:,}."
        )
    return {"of": budget.of, "dense": ledger.dense_in(budget.of), "asked": asked, "kept": kept}


@rank_zero_only
def write(experiment: Experiment, results: Results) -> None:
    """Write model, answers and masks, then the results, which say that the run is complete."""
    save_model(
        experiment.folder / "model",
        experiment.module.model,
        experiment.data.tokenizer,
        experiment.tasks,
    )
    answers = experiment.module.answers
    write_predictions(experiment.folder, {"validation": answers["val"], "test": answers["test"]})
    write_masks(experiment.folder, experiment.pruning.pruner.masks())
    results.write(experiment.folder)
    track(experiment, results)


def track(experiment: Experiment, results: Results) -> None:
    """Show what came of a run to its loggers."""
    density = results.density

    def predictions(count: int) -> dict[str, Table]:
        tables = {}
        for name, task in experiment.tasks.items():
            if (rows := experiment.data.rows(name, "validation")) is not None:
                answers = experiment.module.answers["val"][name]
                tables[name] = worst_examples(task, rows, answers, count)
        return tables

    outcome = Outcome(
        steps=results.steps,
        summary=summary(results),
        figures={"density_by_layer": lambda: density_map(density)} if density else {},
        predictions=predictions,
        model=experiment.folder / "model",
    )
    conclude(experiment.trainer.loggers, outcome)


def plain(config: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain dictionaries and lists."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def quiet_lightning() -> None:
    """Keep the screen for the progress bar and what this package has to say."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # Lightning 2.6 uses what torch 2.13 calls outdated.
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
    # Who wants Slurm to start the processes says so with hydra/launcher=slurm.
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    # That is where a resumed run continues.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
