"""Migrate records of earlier versions when they are read."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NotRequired

from typing_extensions import TypedDict

from multiprune.runs.schema import check_schema
from multiprune.runs.settings import PRUNER, method_settings, settings_with
from multiprune.targets import GETTERS, TARGET

if TYPE_CHECKING:
    from collections.abc import Mapping

# A record without a number. Its metrics and classes are named by their modules of that time.
_KINDS = {
    "Classification": "classes",
    "MultiLabel": "sets",
    "Regression": "number",
    "Tagging": "tags",
    "SpanTagging": "tags",
    "QuestionAnswering": "span",
    "MaskedLanguage": "masked",
}

# Of the kinds of schema 2, the one that was learned from texts alone.
_WITHOUT_LABELS = "masked"

# Settings that have come with schema 3 and 4, of which classes, and what runs did that had none.
_SINCE: dict[tuple[str, str], dict[str, Any]] = {
    ("data", "MultitaskDataModule"): {"data.share_texts": False, "data.workers": 0},
    ("optimizer", "AdamWRecipe"): {"optimizer.rewinds": []},
    ("trainer.precision", "best_precision"): {"trainer.precision.cpu": False},
    ("distillation", "HiddenDistillation"): {"distillation.relative": False},
}

# Metrics were functions, each of which is an object now.
_METRICS = {
    "multiprune.tasks.metrics.accuracy": "Accuracy",
    "multiprune.tasks.metrics.f1": "F1",
    "multiprune.tasks.metrics.macro_f1": "MacroF1",
    "multiprune.tasks.metrics.micro_f1": "MicroF1",
    "multiprune.tasks.metrics.matthews_correlation": "MatthewsCorrelation",
    "multiprune.tasks.metrics.pearson": "Pearson",
    "multiprune.tasks.metrics.spearman": "Spearman",
    "multiprune.tasks.metrics.token_accuracy": "TokenAccuracy",
    "multiprune.tasks.metrics.token_loss": "TokenLoss",
    "multiprune.tasks.metrics.perplexity": "Perplexity",
    "multiprune.tasks.spans.span_f1": "SpanF1",
    "multiprune.tasks.answer_text.f1": "AnswerF1",
    "multiprune.tasks.answer_text.exact_match": "ExactMatch",
}


class _Task(TypedDict):
    metrics: NotRequired[dict[str, Any]]
    languages: NotRequired[list[str] | None]
    train_languages: NotRequired[list[str] | None]
    loss_weight: NotRequired[float | None]


class _Config(TypedDict):
    task: dict[str, _Task]
    pruner: NotRequired[dict[str, Any]]
    encoder: NotRequired[dict[str, Any]]
    data: NotRequired[dict[str, Any]]
    budget: NotRequired[dict[str, Any]]


class _Budget(TypedDict):
    of: NotRequired[str]


class _Earlier(TypedDict):
    config: _Config
    budget: _Budget


class _Record(_Earlier):
    lineage: NotRequired[list[_Earlier]]


class _Task2(TypedDict):
    kind: str


class _Stage2(TypedDict):
    tasks: dict[str, _Task2]
    settings: dict[str, Any]


class _Record2(_Stage2):
    lineage: NotRequired[list[_Stage2]]


def upgraded(content: Any, *, name: str) -> Any:
    """Return what a record of an earlier version holds as the present one writes it.

    Others are returned as they are.

    Raises:
        ValueError: if it lacks what that needs.
    """
    if not isinstance(content, dict) or content.get("schema", 2) not in (2, 3):
        return content
    if "schema" not in content:
        check_schema(_Record, content, name=name)
        stages = [_stage(run) for run in content.get("lineage", [])]
        content = {"schema": 2, **_stage(content), "lineage": stages}
    check_schema(_Record2, content, name=name)
    stages = [_of_schema_4(run) for run in content.get("lineage", [])]
    return {**_of_schema_4(content), "lineage": stages, "schema": 4}


def _of_schema_4(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage whose tasks say whether they were learned from labels, and all settings."""
    tasks = {
        name: {"has_labels": task["kind"] != _WITHOUT_LABELS, **task}
        for name, task in content["tasks"].items()
    }
    given = content["settings"]
    settings = {**_settings_since(given), **given}
    method = {"name": settings.get(PRUNER, ""), "settings": method_settings(settings)}
    return {**content, "tasks": tasks, "settings": settings, "method": method}


def _settings_since(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for (group, name), settings in _SINCE.items():
        if str(given.get(f"{group}.{TARGET}", "")).rpartition(".")[2] == name:
            found |= settings
    return found


def _stage(content: Mapping[str, Any]) -> dict[str, Any]:
    config, budget = _of_today(content["config"]), content["budget"]
    settings = settings_with(config, _defaults)
    return {
        **content,
        "config": config,
        "budget": {**budget, "scope": budget.get("of", "encoder_linear")},
        "settings": settings,
        "method": {"name": settings.get(PRUNER, ""), "settings": method_settings(settings)},
        "tasks": {name: _task(task) for name, task in config["task"].items()},
    }


def _of_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with metrics that can be built."""
    tasks = {
        name: task
        if "metrics" not in task
        else {**task, "metrics": {key: _metric(node) for key, node in task["metrics"].items()}}
        for name, task in config["task"].items()
    }
    return {**config, "task": tasks}


def _metric(node: Any) -> Any:
    if isinstance(node, dict) and node.get(TARGET) == GETTERS[0]:
        now = _METRICS.get(str(node.get("path")))
        return node if now is None else {TARGET: f"multiprune.metrics.{now}"}
    return node


def _task(config: Mapping[str, Any]) -> dict[str, Any]:
    # Of a task that earlier runs were not compared by, no more may be known.
    name = str(config.get(TARGET, "")).rpartition(".")[2]
    given = {key: config.get(key) for key in ("loss_weight", "languages", "train_languages")}
    return {
        "kind": _KINDS.get(name, name),
        "metrics": {name: {} for name in config.get("metrics", {})},
        **{key: value for key, value in given.items() if value is not None},
    }


@cache
def _all_defaults() -> Mapping[str, Mapping[str, Any]]:
    text = (files("multiprune.runs") / "schema_1_defaults.json").read_text()
    defaults: Mapping[str, Mapping[str, Any]] = json.loads(text)
    return defaults


def _defaults(target: str) -> Mapping[str, Any]:
    """Return the defaults that a class of that version had, wherever it stands now."""
    return _all_defaults().get(target.rpartition(".")[2], {})
