"""F1 of named entity spans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import override

from multiprune.metrics.metric import SumMetric
from multiprune.metrics.predicted import NamedSpans

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from torch import Tensor


@dataclass(frozen=True)
class SpanF1(SumMetric):
    """The F1 of all spans pooled (micro), 0 if there is none; whole spans of the right kind count.

    That of conlleval and seqeval.
    """

    accepts = (NamedSpans,)

    @override
    def sums(self, outputs: Sequence[Set[Any]], labels: Sequence[Set[Any]]) -> Tensor:
        pairs = [*zip(outputs, labels, strict=True)]
        found = [[2 * len(spans & right), len(spans) + len(right)] for spans, right in pairs]
        return torch.tensor(found, dtype=torch.double).reshape(-1, 2)
