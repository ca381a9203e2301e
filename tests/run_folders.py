"""Writes the folders of finished runs as training would leave them, with scores of one's choice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from multiprune.metrics import Accuracy
from multiprune.metrics.catalogue import recorded
from multiprune.metrics.terms import MetricTerms, terms_of
from multiprune.runs.budget_outcome import BudgetOutcome, LedgerRow
from multiprune.runs.older_record import upgraded
from multiprune.runs.predictions import Answers, write_predictions
from multiprune.runs.record import SCHEMA, Method, RunRecord, TaskRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LINEAR = 1_000_000
EMBEDDINGS = 300_000
OTHER = 2_000
#: Parameters of one head.
HEAD = 130


def task_config(name: str, **changed: Any) -> dict[str, Any]:
    metric = {"_target_": "multiprune.metrics.Accuracy"}
    source = {"_target_": "multiprune.data.source.HubSource", "path": "glue", "name": name}
    return {
        "_target_": "multiprune.tasks.classification.Classification",
        "text": ["sentence"],
        "metrics": {"accuracy": metric, "f1": metric},
        "source": source,
    } | changed


def results(
    validation: Mapping[str, float],
    *,
    kept: int,
    seed: int = 0,
    test: Mapping[str, float] | None = None,
    examples: Mapping[str, int] | None = None,
    frozen: bool = False,
    pruner: str = "Magnitude",
    asked: int | None = None,
) -> dict[str, Any]:
    """Return what ``results.json`` holds: ``validation`` and ``test`` are the tasks' scores."""
    asked = kept if asked is None else asked
    scores = {
        split: {task: {"f1": 0.0, "accuracy": one} for task, one in values.items()}
        for split, values in (("validation", validation), ("test", test or {}))
    }
    heads = HEAD * len(validation)
    dense = {
        "embeddings": EMBEDDINGS,
        "encoder_linear": LINEAR,
        "encoder_other": OTHER,
        "heads": heads,
    }
    ledger = [
        {"part": part, "dense": size, "kept": kept if part == "encoder_linear" else size}
        for part, size in dense.items()
    ]
    encoder = {"_target_": "multiprune.models.encoder.pretrained", "path": "minilm"}
    return {
        "score": sum(validation.values()) / len(validation),
        **scores,
        "budget": {"of": "encoder_linear", "dense": LINEAR, "asked": asked, "kept": kept},
        "ledger": [row | {"in_scope": row["part"] == "encoder_linear"} for row in ledger],
        "density": {"model.encoder.layer.0.weight": kept / LINEAR},
        "mask_sha256": "0123",
        "examples": dict(examples or dict.fromkeys(validation, 100)),
        "truncated": dict.fromkeys(validation, 0),
        "steps": 12,
        "wall_seconds": 3,
        "seconds_per_step": 0.25,
        "seed": seed,
        "metrics": {
            task: dict.fromkeys(("accuracy", "f1"), recorded(Accuracy())) for task in validation
        },
        "config": {
            "task": {task: task_config(task) for task in validation},
            "encoder": encoder | ({"freeze_embeddings": True} if frozen else {}),
            "data": {"batch_size": 32, "max_length": 128, "mirror": f"/home/{seed}", "cap": {}},
            "budget": {"_target_": "multiprune.budget.CountBudget", "count": asked},
            "pruner": {"_target_": f"multiprune.pruning.some.{pruner}"},
            "optimizer": {"learning_rate": 1e-4},
            "trainer": {"max_epochs": 3, "accelerator": "cpu"},
            "seed": seed,
        },
    }


def write(folder: Path, content: Mapping[str, Any], *overrides: str) -> Path:
    """Write a run's folder."""
    (folder / ".hydra").mkdir(parents=True)
    lines = "".join(f"- {json.dumps(one)}\n" for one in overrides)
    (folder / ".hydra" / "overrides.yaml").write_text(lines or "[]\n")
    (folder / "results.json").write_text(json.dumps(of_today(content)))
    return folder


def of_today(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return content as the present version writes it, unless it is damaged."""
    try:
        today: Mapping[str, Any] = upgraded(content, name="results.json")
    except ValueError:
        return content
    if today is content:
        return content
    measures = content.get("metrics", {})
    tasks = {
        name: task | {"metrics": task["metrics"] | measures.get(name, {})}
        for name, task in today["tasks"].items()
    }
    return {"schema": SCHEMA, **today, "tasks": tasks}


def write_answers(run: Path, right: Mapping[str, Sequence[bool]], split: str = "test") -> None:
    """Write which examples of each task a run got right; all labels are 1."""
    by_task = {}
    for task, one in right.items():
        predictions = torch.from_numpy(np.asarray(one, np.int64))
        examples = torch.arange(len(predictions))
        by_task[task] = Answers(predictions, torch.ones_like(predictions), examples)
    write_decided(run, by_task, split)


def write_decided(run: Path, by_task: Mapping[str, Answers], split: str = "test") -> None:
    """Write which of two classes a run answered, and what that adds to the accuracy."""
    terms = {}
    for task, answers in by_task.items():
        outputs = functional.one_hot(answers.predictions.long(), 2).double()
        examples, which = torch.unique(answers.examples, return_inverse=True)
        found, places = terms_of(Accuracy(), outputs, answers.labels, which, len(examples))
        languages = torch.zeros(len(examples), dtype=torch.long)
        terms[task] = MetricTerms(found, places, languages, torch.arange(len(examples)))
    write_predictions(run, {split: by_task}, {split: terms})


def record_with(**changed: Any) -> RunRecord:
    """Return the record of a run of one task, but for what is ``changed``."""
    content: dict[str, Any] = {
        "score": 0.75,
        "validation": {"rte": {"accuracy": 0.75}},
        "test": {"rte": {"accuracy": 0.25}},
        "budget": BudgetOutcome(scope="encoder_linear", dense=100, asked=30, kept=25),
        "ledger": [LedgerRow(part="encoder_linear", dense=100, kept=25, in_scope=True)],
        "density": {"encoder.0.weight": 0.25},
        "mask_sha256": "0123",
        "examples": {"rte": 40},
        "truncated": {"rte": 0},
        "steps": 12,
        "wall_seconds": 1.5,
        "seconds_per_step": 0.125,
        "seed": 3,
        "method": Method(name="Magnitude", settings={"pruner._target_": "Magnitude"}),
        "tasks": {"rte": TaskRecord(kind="classes", metrics={"accuracy": {"name": "accuracy"}})},
        "settings": {"pruner._target_": "Magnitude", "seed": 3},
        "config": {"seed": 3, "task": {"rte": {}}, "data": {"mirror": None}},
    }
    return RunRecord(**{**content, **changed})
