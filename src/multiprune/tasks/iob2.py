"""The IOB2 tagging scheme: ``O``, ``B-`` and ``I-`` tags."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The tag of words that are of no kind.
OUTSIDE = "O"

#: Spans of one example: what each is, its first word and the one after its last.
Spans = set[tuple[str, int, int]]


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
