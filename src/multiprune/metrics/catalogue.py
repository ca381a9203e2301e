"""Metrics by name, from which a report computes recorded ones again."""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields
from typing import TYPE_CHECKING, Any

from multiprune.metrics.answers import AnswerF1, ExactMatch
from multiprune.metrics.correlations import Pearson, Spearman
from multiprune.metrics.decisions import F1, Accuracy, MacroF1, MatthewsCorrelation, MicroF1
from multiprune.metrics.metric import SumMetric, WholeMetric
from multiprune.metrics.probabilities import ExpectedCalibrationError, LogLoss, RecallAtK
from multiprune.metrics.ranking import AUROC, AveragePrecision
from multiprune.metrics.spans import SpanF1
from multiprune.metrics.tokens import Perplexity, TokenAccuracy, TokenLoss

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.metrics.metric import Metric

#: Metrics that are known by name.
Known = SumMetric | WholeMetric

#: Names stay as they are, whatever becomes of a class: there are records with them.
CATALOGUE: Mapping[str, type[Known]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "macro_f1": MacroF1,
    "micro_f1": MicroF1,
    "matthews_correlation": MatthewsCorrelation,
    "log_loss": LogLoss,
    "expected_calibration_error": ExpectedCalibrationError,
    "recall_at_k": RecallAtK,
    "auroc": AUROC,
    "average_precision": AveragePrecision,
    "pearson": Pearson,
    "spearman": Spearman,
    "span_f1": SpanF1,
    "answer_f1": AnswerF1,
    "exact_match": ExactMatch,
    "token_accuracy": TokenAccuracy,
    "token_loss": TokenLoss,
    "perplexity": Perplexity,
}

_NAMES: dict[type, str] = {kind: name for name, kind in CATALOGUE.items()}


def is_known(metric: Metric) -> bool:
    """Whether a metric is one of the catalogue, and no other that is derived from one."""
    return type(metric) in _NAMES


def recorded(metric: Metric) -> dict[str, Any]:
    """Return a metric's name and settings; of one that is not known here a name alone."""
    if not is_known(metric):
        return {"name": metric.name}
    return {"name": _NAMES[type(metric)], **asdict(metric)}


def named_metrics(names: Sequence[str]) -> dict[str, Known]:
    """Return metrics by their names.

    Raises:
        ValueError: if one is not known here, or has settings that must be given.
    """
    plain = [
        name
        for name, kind in CATALOGUE.items()
        if all(field.default is not MISSING for field in fields(kind))
    ]
    if unknown := [name for name in names if name not in plain]:
        raise ValueError(f"A metric must be one of {', '.join(plain)}, but is {unknown[0]!r}.")
    return {name: CATALOGUE[name]() for name in names}


def from_record(record: Mapping[str, Any]) -> Known:
    """Return the metric that was recorded.

    Raises:
        ValueError: if it is not known here, or has other settings.
    """
    settings = dict(record)
    name = settings.pop("name", None)
    if not isinstance(name, str) or name not in CATALOGUE:
        raise ValueError(f"{name!r} is not one of the metrics of multiprune")
    try:
        return CATALOGUE[name](**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metric {name!r} has no settings {settings}: {error}") from error
