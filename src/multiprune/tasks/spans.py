"""Named entity spans from IOB2 tags."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from typing_extensions import override

from multiprune.metrics.predicted import NamedSpans, Predicted
from multiprune.tasks.iob2 import Spans, marks_spans, spans_of
from multiprune.tasks.outputs.tags import Tags
from multiprune.tasks.tagging import Tagging
from multiprune.tasks.task import Compared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from multiprune.runs.predictions import Answers
    from multiprune.tasks.rows import Rows


@dataclass(kw_only=True)
class SpanTagging(Tagging):
    """Finds spans of words; the labels are ``O``, and ``B-`` and ``I-`` before kinds of spans."""

    described_as: ClassVar[str] = Tags.kind
    usual_metrics: ClassVar[Sequence[str]] = ("span_f1",)

    @classmethod
    @override
    def is_described_by(cls, description: Mapping[str, Any]) -> bool:
        return super().is_described_by(description) and marks_spans(description.get("labels", ()))

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None and not marks_spans(self.labels):
            raise ValueError(
                "`labels` of spans must be O, and others that begin with B- or I-, but are "
                f"{', '.join(self.labels)}."
            )

    @property
    @override
    def predicted(self) -> Predicted:
        return NamedSpans()

    @override
    def compared(self, answers: Answers, rows: Rows | None) -> Compared:
        answers = answers.sorted()
        examples, counts = torch.unique(answers.examples, return_counts=True)
        sizes: list[int] = counts.tolist()
        tags = self.output.decided(answers.predictions)
        return Compared(self._spans(tags, sizes), self._spans(answers.labels, sizes), examples)

    def _spans(self, tags: Tensor, sizes: Sequence[int]) -> list[Spans]:
        """Return the spans of examples, from the tags of all their words and how many they have."""
        names = iter([self.labels[tag] for tag in tags.tolist()])
        return [spans_of([*islice(names, size)]) for size in sizes]
