"""Metrics of tasks: ``metrics: {accuracy: {_target_: multiprune.metrics.Accuracy}}``."""

from multiprune.metrics.answers import AnswerF1, ExactMatch
from multiprune.metrics.correlations import Pearson, Spearman
from multiprune.metrics.decisions import F1, Accuracy, MacroF1, MatthewsCorrelation, MicroF1
from multiprune.metrics.metric import Metric, SumMetric, WholeMetric
from multiprune.metrics.probabilities import ExpectedCalibrationError, LogLoss, RecallAtK
from multiprune.metrics.ranking import AUROC, AveragePrecision
from multiprune.metrics.spans import SpanF1
from multiprune.metrics.tokens import Perplexity, TokenAccuracy, TokenLoss

__all__ = [
    "AUROC",
    "F1",
    "Accuracy",
    "AnswerF1",
    "AveragePrecision",
    "ExactMatch",
    "ExpectedCalibrationError",
    "LogLoss",
    "MacroF1",
    "MatthewsCorrelation",
    "Metric",
    "MicroF1",
    "Pearson",
    "Perplexity",
    "RecallAtK",
    "SpanF1",
    "Spearman",
    "SumMetric",
    "TokenAccuracy",
    "TokenLoss",
    "WholeMetric",
]
