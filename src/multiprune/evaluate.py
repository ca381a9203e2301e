"""Evaluate a run's model, or an exported one, on labelled rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from multiprune.arguments import check_number
from multiprune.data.batches import EncodedTask, examples_of
from multiprune.data.cache import default_cache_folder
from multiprune.data.renamed import RenamedSource
from multiprune.data.source import FileSource
from multiprune.data.splits import SplitReader
from multiprune.export.loading import load_on
from multiprune.measure.answered import answered
from multiprune.metrics.catalogue import named_metrics
from multiprune.models.encoder import Encoder
from multiprune.models.factory import tasks_for
from multiprune.runs.folder import has_results
from multiprune.specialize.origin import read_origin
from multiprune.tasks.described import task_from
from multiprune.tasks.scores import check_metrics, reads_rows, scores_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from multiprune.export.shipped import ShippedModel
    from multiprune.specialize.origin import Origin
    from multiprune.tasks.rows import Source
    from multiprune.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What is evaluated, and how.

    Attributes:
        folder: of a finished run, or of an exported model.
        data: file of labelled rows, as ``FileSource`` reads it; None for the data of the run.
        split: of the run's data, ``validation`` or ``test``.
        tasks: that are evaluated; the only one by default, or without ``data`` all that have rows.
        text: columns of the file that the task reads; those of the task by default.
        label: column of the file with the labels; that of the task by default.
        metrics: by name, in place of those of the run, or those that are usual for such a task.
        data_of: run that an exported model comes from, whose metrics and data are used.
        mirror: local mirror of data to read instead of the run's.
        allow_targets: further packages of classes and functions that the run may name.
        density: of a model of many sizes.
        batch_size: encoded rows of a batch.
        device: ``cpu`` or ``cuda``; a GPU by default where there is one.
    """

    folder: Path
    data: Path | None = None
    split: str = "validation"
    tasks: Sequence[str] = ()
    text: Sequence[str] | None = None
    label: str | None = None
    metrics: Sequence[str] = ()
    data_of: Path | None = None
    mirror: str | None = None
    allow_targets: Sequence[str] = ()
    density: float | None = None
    batch_size: int = 32
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of one task.

    Attributes:
        scores: by metric; of a task in several languages the mean, each one, and groups of them.
        examples: that were evaluated.
        unlabelled: rows that were left out, as they have no label.
        wordless: rows that were left out, as they have no word.
        truncated: texts cut to the length of training.
    """

    scores: dict[str, float]
    examples: int
    unlabelled: int
    wordless: int
    truncated: int


def evaluate(request: EvaluationRequest) -> dict[str, Evaluation]:
    """Return scores by task, which for the same rows are those that training reports.

    Raises:
        FileNotFoundError: if there is no model, or no file of rows.
        ValueError: if the model has no such task, a metric does not fit, or rows cannot be read,
            have no labels, or lack a column.
    """
    check_number("batch_size", request.batch_size, at_least=1, whole=True)
    model = load_on(request.folder, density=request.density, device=request.device)
    run = request.data_of
    if run is None and has_results(request.folder):
        run = request.folder
    origin = None if run is None else read_origin(run, allow_targets=request.allow_targets)
    found = {}
    for name in _names(request, model, origin):
        task = _task(request, model, origin, name)
        if (evaluation := _evaluated(request, model, origin, name, task)) is not None:
            found[name] = evaluation
    if not found:
        where = request.data or f"the {request.split} split of {run}"
        raise ValueError(f"No row of {where} has a label to evaluate with.")
    return found


def _names(request: EvaluationRequest, model: ShippedModel, origin: Origin | None) -> Sequence[str]:
    """Return the tasks that are evaluated."""
    for name in request.tasks:
        model.check_task(name)
    names = [*dict.fromkeys(request.tasks or model.meaning)]
    if request.data is None:
        if origin is None:
            raise ValueError(
                "An exported model has no data: pass labelled rows with `--data`, or its run "
                "with `--data-of`."
            )
        if request.text or request.label:
            raise ValueError("`--text` and `--label` need `--data`.")
    elif len(names) > 1:
        raise ValueError(f"`--data` needs one `--task`: choose one of {', '.join(names)}.")
    known = names if origin is None else origin.config["task"]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"Unknown tasks {', '.join(unknown)}: the run has only {', '.join(known)}."
        )
    return names


def _task(
    request: EvaluationRequest, model: ShippedModel, origin: Origin | None, name: str
) -> Task:
    """Return a task that reads what is asked for, with the metrics that are asked for."""
    encoder = Encoder(model.encoder, model.tokenizer)
    source = None
    if request.data is not None:
        source = FileSource(files={"validation": str(request.data)})
    if origin is None:
        assert source is not None
        task = task_from(name, model.meaning[name], source)
        task = tasks_for(encoder, {name: task})[name]
    else:
        task = origin.task(name, encoder, request.mirror)
    if source is not None:
        task.source = _renamed(source, task, request)
    if request.metrics:
        # Not by `replace`: here, the first may be one of which less is better.
        task.metrics = named_metrics(request.metrics)
    check_metrics({name: task})
    return task


def _renamed(source: Source, task: Task, request: EvaluationRequest) -> Source:
    """Return a source with the columns of a task, which a file may call otherwise."""
    names = {}
    if request.text is not None:
        if len(request.text) != len(task.text):
            raise ValueError(
                f"`--text` must name {len(task.text)} column(s), for {', '.join(task.text)}, but "
                f"names {', '.join(request.text)}."
            )
        names = dict(zip(task.text, request.text, strict=True))
    if request.label is not None:
        if not task.label_columns:
            raise ValueError("`--label` is not used: the labels of this task are its texts.")
        names[task.label] = request.label
    return RenamedSource(source=source, names=names)


def _evaluated(
    request: EvaluationRequest, model: ShippedModel, origin: Origin | None, name: str, task: Task
) -> Evaluation | None:
    """Evaluate a task; None if there are no rows that have labels."""
    split = "validation" if request.data is not None else request.split
    reader = SplitReader(
        tokenizer=model.tokenizer,
        max_length=model.max_length(name),
        cache=default_cache_folder(),
        mirror=None if origin is None else origin.mirror(request.mirror),
        language=None if origin is None else origin.config["data"].get("language"),
        seed=0,
    )
    read = reader.encoded_split(name, task, split)
    if read is None:
        return None
    encoded = EncodedTask(
        name=name,
        task=task,
        splits={split: read.table},
        truncated=read.truncated,
        padding_token=model.tokenizer.pad_token_id,
    )
    answers = answered(model, encoded, split, batch_size=request.batch_size)
    rows = reader.used(name, task, split)[-1] if reads_rows(task) else None
    return Evaluation(
        scores=scores_of(task, answers, rows),
        examples=len(np.unique(examples_of(read.table))),
        unlabelled=read.unlabelled,
        wordless=len(read.wordless),
        truncated=read.truncated,
    )
