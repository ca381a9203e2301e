"""Metrics as records of earlier versions name them: functions, each of which is an object now."""

from __future__ import annotations

from typing import Any

from multiprune.targets import GETTERS, TARGET

_NOW = {
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


def with_metrics_of_today(task: Any) -> Any:
    """Return the configuration of a task with metrics that can be built."""
    if not isinstance(task, dict) or not isinstance(metrics := task.get("metrics"), dict):
        return task
    return task | {"metrics": {name: _of_today(node) for name, node in metrics.items()}}


def _of_today(node: Any) -> Any:
    if isinstance(node, dict) and node.get(TARGET) == GETTERS[0]:
        now = _NOW.get(str(node.get("path")))
        return node if now is None else {TARGET: f"multiprune.metrics.{now}"}
    return node
