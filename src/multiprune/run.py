"""One run, from its configuration to a folder of results; reads top to bottom."""

from __future__ import annotations

import gc
import logging
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities import rank_zero_only

from multiprune.assembly import assemble
from multiprune.config import built
from multiprune.data.pieces import CorpusError
from multiprune.data.read_labels import labels_of
from multiprune.export.checkpoint import meaning_of, save_model
from multiprune.export.dynamic import save_sizes
from multiprune.export.shipped import ShippedModel
from multiprune.naming import describe
from multiprune.outcome import (
    ended_by_sigterm,
    is_first_process,
    refusal,
    refused,
    reported,
)
from multiprune.pruning.fingerprint import mask_digest
from multiprune.pruning.pruner import UnfinishedPruningError
from multiprune.pruning.ready import NotReadyError
from multiprune.quiet import quiet_libraries
from multiprune.report.outcome import density_map, summary
from multiprune.report.resampled import resamples_of
from multiprune.report.summary import print_summary
from multiprune.runs.folder import MODEL, SIZES_FOLDER, RunFolder
from multiprune.runs.masks import write_masks
from multiprune.runs.predictions import read_predictions, write_predictions
from multiprune.runs.record import Method, RunRecord, TaskRecord, scores_by_task
from multiprune.runs.settings import packages_of, settings_of
from multiprune.runs.status import StatusFile
from multiprune.tasks.answers import decided
from multiprune.tasks.scores import metric_terms, metrics_of, reads_rows
from multiprune.tracking.tracker import Outcome, Table, conclude, tracked, trackers
from multiprune.training.checkpoint_file import read_checkpoint
from multiprune.training.checkpoints import checkpoint_to_continue
from multiprune.training.examples import worst_examples
from multiprune.training.lost_rank import watched
from multiprune.training.module import ResumeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from multiprune.assembly import Experiment
    from multiprune.metrics.terms import MetricDraws, MetricTerms
    from multiprune.runs.predictions import Answers
    from multiprune.training.module import MultitaskModule


def run(config: Mapping[str, Any]) -> float:
    """Train, prune and evaluate what ``config`` describes; return the score on validation data.

    Writes ``results.json``, ``metrics.csv``, ``predictions.safetensors``, ``masks.safetensors``,
    ``checkpoints/`` and ``model/`` into Hydra's output folder, and ``status.json`` while it goes
    on. If that holds ``checkpoints/last.ckpt`` of an unfinished run, continues that run. What the
    configuration alone tells was checked before.
    """
    status = begun()
    with reported(status), ended_by_sigterm():
        experiment = prepare(config, status)
        described = describe(experiment.config, status.folder)
        with tracked(experiment.trainer.loggers, described), watched(experiment.trainer, status):
            train(experiment)
            record = finish(experiment)
        end(status, record)
    if experiment.trainer.is_global_zero:
        print_summary(record, status.folder)
    return record.score


def conclude_again(config: Mapping[str, Any]) -> float:
    """Do for a run that was ended after it wrote its results what it had left to do."""
    status = begun()
    with reported(status), ended_by_sigterm():
        status.begin()
        record = RunRecord.read(status.folder)
        if trackers(built(config, "logger").values()):
            experiment = prepare(config, status)
            answers = read_predictions(status.folder)["validation"]
            with tracked(experiment.trainer.loggers, describe(experiment.config, status.folder)):
                track(experiment, record, answers)
        end(status, record)
    print_summary(record, status.folder)
    return record.score


def begun() -> StatusFile:
    """Make this process ready for a run; return where that says how far it is."""
    # A Trainer and its module refer to each other, and Python rarely looks for such circles: the
    # models of a sweep's earlier jobs would stay in memory.
    gc.collect()
    quiet_libraries()
    quiet_lightning()
    folder = Path(HydraConfig.get().runtime.output_dir)
    return StatusFile(folder, writes=is_first_process())


def end(status: StatusFile, record: RunRecord) -> None:
    """Say that the run is finished."""
    status.end("finished", score=record.score, density=record.budget.density)


def prepare(config: Mapping[str, Any], status: StatusFile) -> Experiment:
    """Assemble what ``config`` describes, or refuse it."""
    with refused(status):
        return assemble(config, status)


def train(experiment: Experiment) -> None:
    """Train from the beginning, or from where the run in this folder was stopped."""
    try:
        checkpoint = checkpoint_to_continue(experiment.folder / "checkpoints")
        experiment.trainer.fit(
            experiment.module, experiment.data, ckpt_path=checkpoint, weights_only=True
        )
    except (
        *(ResumeError, CorpusError, ChildProcessError, FloatingPointError, UnfinishedPruningError),
        NotReadyError,
        # Lightning checks some settings only now.
        MisconfigurationException,
    ) as error:
        raise refusal(error) from error
    except RuntimeError as error:
        # What torch says has a line for each weight.
        if "loading state_dict" not in str(error):
            raise
        other = ResumeError(
            f"{experiment.folder / 'checkpoints'} must hold checkpoints of this model, but they "
            "are of another: choose another hydra.run.dir, or remove them to begin anew."
        )
        raise refusal(other) from other


def finish(experiment: Experiment) -> RunRecord:
    """Take the best weights that meet the budget, make the pruning permanent, evaluate, write."""
    trainer, module, pruner = experiment.trainer, experiment.module, experiment.pruning.pruner
    steps = trainer.global_step
    # Training that ends within its first epoch is not evaluated before its end.
    if (best := experiment.best.file) is not None:
        load_best(module, best)
    densities = experiment.pruning.densities()
    pruner.finalize()
    # What was kept: no more than was asked for, and less by less than a group.
    pruner.check_budget()
    budget = pruner.budget.outcome(pruner.ledger())
    validation, test = evaluate(experiment)
    config = experiment.config
    settings = settings_of(config, trusted=packages_of(config))
    record = RunRecord(
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
        seed=config["seed"],
        config=config,
        settings=settings,
        method=Method.from_settings(settings),
        tasks=tasks_of(experiment),
        lineage=experiment.lineage,
        labels=labels_of(experiment.tasks),
    )
    write(experiment, record)
    return record


def load_best(module: MultitaskModule, best: Path) -> None:
    """Take the weights of the best checkpoint, or refuse it."""
    try:
        module.load_state_dict(read_checkpoint(best)["state_dict"])
    except ResumeError as error:
        raise refusal(error) from error


def evaluate(experiment: Experiment) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is logged of validation data, and of test data if there are any."""
    trainer, data = experiment.trainer, experiment.data
    trainer.validate(experiment.module, data, verbose=False)
    validation = dict(trainer.callback_metrics)
    if not data.test_dataloader():
        return validation, {}
    trainer.test(experiment.module, data, verbose=False)
    return validation, dict(trainer.callback_metrics)


def tasks_of(experiment: Experiment) -> dict[str, TaskRecord]:
    """Return what is recorded of each task."""
    return {
        name: TaskRecord(
            kind=task.output.kind,
            has_labels=bool(task.label_columns),
            metrics=metrics_of(task),
            loss_weight=task.loss_weight,
            languages=[*task.languages],
            train_languages=None if task.train_languages is None else [*task.train_languages],
        )
        for name, task in experiment.tasks.items()
    }


@rank_zero_only
def write(experiment: Experiment, record: RunRecord) -> None:
    """Write models, answers and masks, then the results, which say that the run is complete."""
    model, tokenizer = experiment.module.model, experiment.data.tokenizer
    length = experiment.data.max_length
    folder = RunFolder(experiment.folder)
    place, claim = experiment.folder / MODEL, folder.claim(MODEL)
    save_model(place, model, tokenizer, experiment.tasks, length, claim=claim)
    save_every_size(experiment, folder)
    found = experiment.module.answers
    answers = {"validation": found["val"], "test": found["test"]}
    answered = {
        split: {name: decided(experiment.tasks[name], one) for name, one in by_task.items()}
        for split, by_task in answers.items()
    }
    write_predictions(experiment.folder, answered, terms_of(experiment, answers))
    write_masks(experiment.folder, experiment.pruning.pruner.masks())
    record.write(experiment.folder)
    track(experiment, record, answered["validation"])


def terms_of(
    experiment: Experiment, answers: Mapping[str, Mapping[str, Answers]]
) -> dict[str, dict[str, MetricTerms | MetricDraws]]:
    """Return what a report needs to resample scores, by split and task."""
    found: dict[str, dict[str, MetricTerms | MetricDraws]] = {}
    for split, by_task in answers.items():
        for name, one in by_task.items():
            task = experiment.tasks[name]
            rows = experiment.data.rows(name, split) if reads_rows(task) else None
            terms = metric_terms(task, one, rows, partial(resamples_of, split, name))
            if terms is not None:
                found.setdefault(split, {})[name] = terms
    return found


def save_every_size(experiment: Experiment, folder: RunFolder) -> None:
    """Write the model of all sizes, where the smallest is not the only one."""
    pruner, heads = experiment.pruning.pruner, experiment.module.model.heads
    if (sizes := pruner.sizes()) is None:
        return
    meaning = meaning_of(experiment.tasks, experiment.data.max_length)
    whole = ShippedModel(sizes.encoder, heads, meaning, experiment.data.tokenizer)
    claim = folder.claim(SIZES_FOLDER)
    save_sizes(folder.path / SIZES_FOLDER, whole, sizes.order, pruner.budget.of, claim=claim)


def track(experiment: Experiment, record: RunRecord, validation: Mapping[str, Answers]) -> None:
    """Show what came of a run to its loggers."""
    density = record.density

    def predictions(count: int) -> dict[str, Table]:
        tables = {}
        for name, task in experiment.tasks.items():
            rows = experiment.data.rows(name, "validation") if task.examples_are_rows else None
            if rows is not None:
                tables[name] = worst_examples(task, rows, validation[name], count)
        return tables

    outcome = Outcome(
        steps=record.steps,
        summary=summary(record),
        figures={"density_by_layer": lambda: density_map(density)} if density else {},
        predictions=predictions,
        model=experiment.folder / MODEL,
    )
    conclude(experiment.trainer.loggers, outcome)


def quiet_lightning() -> None:
    """Keep the screen for the progress bar and what this package has to say."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # Lightning 2.6 uses what torch 2.13 calls outdated.
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
    # Who wants Slurm to start the processes says so with hydra/launcher=slurm.
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    # That is where a resumed run continues.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
