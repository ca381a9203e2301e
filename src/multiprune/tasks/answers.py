"""What a model has answered to a whole evaluation set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Answers:
    """Decided predictions beside labels, one an example, or one a labelled token in tagging.

    Attributes:
        predictions: (answers,), or (answers, labels) of 0 and 1 in multi-label tasks.
        labels: of the same shape.
        examples: (answers,), where in its split the example stands that an answer belongs to;
            -1 if that is not known.
    """

    predictions: Tensor
    labels: Tensor
    examples: Tensor

    def sorted(self) -> Answers:
        """Return the same answers by example, those of one example in their order."""
        order = self.examples.argsort(stable=True)
        return Answers(self.predictions[order], self.labels[order], self.examples[order])
