"""Bootstrap of metrics that are not sums over examples, such as those of torchmetrics."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import override

from multiprune.metrics.metric import Metric, WholeMetric

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Repeated(WholeMetric):
    """A metric that is computed anew of the answers of each resample; terms are their places."""

    metric: Metric
    outputs: Any
    labels: Any

    accepts = ()

    @override
    def terms(self, outputs: Any, labels: Any) -> Tensor:
        return torch.arange(len(labels), dtype=torch.double)[:, None]

    @override
    def scores(self, terms: Tensor, weights: Tensor) -> Tensor:
        places = terms[:, 0].long()
        found = []
        with warnings.catch_warnings():
            # That a resample is one-sided is nothing to tell.
            warnings.simplefilter("ignore")
            for times in weights.long():
                drawn = places.repeat_interleave(times).tolist()
                sides = _chosen(self.outputs, drawn), _chosen(self.labels, drawn)
                # Nobody asks for a language of which there is no example.
                found.append(self.metric(*sides) if drawn else 0.0)
        return torch.tensor(found, dtype=torch.double)


def _chosen(values: Any, places: Sequence[int]) -> Any:
    return values[places] if isinstance(values, Tensor) else [values[place] for place in places]
