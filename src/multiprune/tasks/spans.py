"""Named spans of words, as tags of the scheme IOB2 mark them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from multiprune.metrics.outputs import NamedSpans, Output
from multiprune.tasks.tagging import OUTSIDE, Tagging
from multiprune.tasks.task import Compared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from multiprune.runs.predictions import Answers
    from multiprune.tasks.task import Rows

#: Spans of one example: what each is, its first word and the one after its last.
Spans = set[tuple[str, int, int]]


@dataclass(kw_only=True)
class SpanTagging(Tagging):
    """Finds spans of words; the labels are ``O``, and ``B-`` and ``I-`` before kinds of spans."""

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
    def output(self) -> Output:
        return NamedSpans()

    @override
    def compared(self, answers: Answers, rows: Rows | None) -> Compared:
        answers = answers.sorted()
        examples, counts = torch.unique(answers.examples, return_counts=True)
        sizes: list[int] = counts.tolist()
        tags = self.decided(answers.predictions)
        return Compared(self._spans(tags, sizes), self._spans(answers.labels, sizes), examples)

    def _spans(self, tags: Tensor, sizes: Sequence[int]) -> list[Spans]:
        """Return the spans of examples, from the tags of all their words and how many they have."""
        names = iter([self.labels[tag] for tag in tags.tolist()])
        return [spans_of([*islice(names, size)]) for size in sizes]


def marks_spans(labels: Sequence[str]) -> bool:
    """Whether tags are ``O``, and others that begin with ``B-`` or ``I-``."""
    others = [one for one in labels if one != OUTSIDE]
    return OUTSIDE in labels and all(one.startswith(("B-", "I-")) for one in others)


def spans_of(tags: Sequence[str]) -> Spans:
    """Return the spans of a sequence of tags, as conlleval and seqeval read them.

    A span goes on while tags say ``I-`` of its kind; ``I-`` behind anything else begins one.
    """
    spans: Spans = set()
    opened, start = "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        goes_on = prefix == "I" and kind == opened
        if opened and not goes_on:
            spans.add((opened, start, place))
            opened = ""
        if prefix != "O" and not goes_on:
            opened, start = kind, place
    return spans
