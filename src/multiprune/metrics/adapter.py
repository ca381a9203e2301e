"""Adapter for metrics of torchmetrics."""

from __future__ import annotations

import warnings
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torchmetrics
from typing_extensions import override

from multiprune.metrics.metric import Metric
from multiprune.metrics.predicted import AnswerTexts, Classes, LabelSets, Numbers, Predicted

if TYPE_CHECKING:
    from collections.abc import Iterator

# Torchmetrics does not say what its metrics are of, but where they are.
_OF_NUMBERS = "torchmetrics.regression"
_OF_CLASSES = "torchmetrics.classification"


@dataclass(frozen=True)
class TorchMetric(Metric):
    """A metric of torchmetrics.

    It is given probabilities and labels: of two classes the probability of class 1 if it takes
    that, as ``Binary...`` do, otherwise that of each class; of numbers the values.
    """

    metric: torchmetrics.Metric

    accepts = (Classes, LabelSets, Numbers, AnswerTexts)

    def __post_init__(self) -> None:
        for part in self.metric.modules():
            if isinstance(part, torchmetrics.Metric):
                # Each process has the answers of all.
                part.sync_on_compute = False

    @property
    @override
    def name(self) -> str:
        return f"{type(self.metric).__name__} of torchmetrics"

    @property
    @override
    def lower_is_better(self) -> bool:
        return self.metric.higher_is_better is False

    @override
    def check(self, output: Predicted) -> None:
        home = type(self.metric).__module__
        is_number = isinstance(output, Numbers)
        if not isinstance(output, self.accepts) or home.startswith(
            _OF_CLASSES if is_number else _OF_NUMBERS
        ):
            raise ValueError(f"{self.name} is not for {output.plural}")
        with warnings.catch_warnings():
            # That the example is one-sided says nothing.
            warnings.simplefilter("ignore")
            try:
                self(*_example(output))
            except Exception as error:
                said = " ".join(str(error).split()).rstrip(".")
                raise ValueError(
                    f"{self.name} is not for a task that predicts {output}: {said}"
                ) from error

    @override
    def __call__(self, outputs: Any, labels: Any) -> float:
        errors = []
        for form in _forms(outputs, labels):
            metric = deepcopy(self.metric)
            if isinstance(form, torch.Tensor):
                metric = metric.to(form.device)
            try:
                metric.update(form, labels)
            except (ValueError, RuntimeError, TypeError) as error:
                errors.append(error)
                continue
            return _number(self.name, metric.compute())
        raise errors[-1]


def _forms(outputs: Any, labels: Any) -> Iterator[Any]:
    """Yield the forms that a metric may take the outputs in."""
    if isinstance(outputs, torch.Tensor) and outputs.shape[1:] == (2,) and labels.dim() == 1:
        yield outputs[:, 1]
    yield outputs


def _number(name: str, value: Any) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value)
    raise ValueError(f"{name} must compute one number, but computes {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def _example(output: Predicted) -> tuple[Any, Any]:
    """Return outputs of the form that a task has, and labels of each kind."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(output, Classes):
        labels = torch.arange(2 * output.count) % output.count
        scores = torch.rand(len(labels), output.count, generator=generator, dtype=torch.double)
        return scores / scores.sum(1, keepdim=True), labels
    if isinstance(output, LabelSets):
        outputs = torch.rand(6, output.count, generator=generator, dtype=torch.double)
        return outputs, (torch.arange(6)[:, None] + torch.arange(output.count)) % 2
    if isinstance(output, Numbers):
        return torch.rand(6, generator=generator), torch.arange(6.0)
    return ["red dog", "cat"], [["red dog"], ["the cat", "cat"]]
