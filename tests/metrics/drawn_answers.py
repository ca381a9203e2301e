"""Any answers to a few examples, degenerate ones too, as tests of properties draw them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from strategies import integers
from torch import tensor

from multiprune.tasks.iob2 import spans_of

#: Outputs and labels.
Compared = tuple[Any, Any]

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
# Probabilities in steps of a 16th, which add up exactly: many are equal, some are 0 or 1.
STEPS = 16


@st.composite
def classes(draw: st.DrawFn, most: int = 5) -> Compared:
    count, size = draw(st.integers(2, most)), draw(st.integers(1, 12))
    cuts = np.sort(draw(integers((size, count - 1), 0, STEPS)), 1)
    outputs = np.diff(cuts, prepend=0, append=STEPS) / STEPS
    return tensor(outputs), tensor(draw(integers(size, 0, count - 1)))


@st.composite
def label_sets(draw: st.DrawFn) -> Compared:
    shape = draw(st.integers(1, 8)), draw(st.integers(2, 4))
    return tensor(draw(integers(shape, 0, STEPS)) / STEPS), tensor(draw(integers(shape, 0, 1)))


_few = st.sampled_from([0.0, 1.0, 2.5])
numbers = st.lists(
    st.tuples(st.floats(-5, 5, width=32) | _few, st.floats(0, 5, width=32) | _few),
    min_size=1,
    max_size=12,
).map(lambda drawn: (tensor(drawn)[:, 0], tensor(drawn)[:, 1]))

#: For each text the tags predicted and right of each word.
tagged = st.lists(
    st.lists(st.tuples(*[st.sampled_from(TAGS)] * 2), min_size=1, max_size=6),
    min_size=1,
    max_size=6,
)

_words = st.lists(st.sampled_from(["red", "dog", "cat"]), max_size=4).map(" ".join)
#: A text and all that are right, of each question.
texts = st.lists(
    st.tuples(_words, st.lists(_words, min_size=1, max_size=3)), min_size=1, max_size=6
)

#: A token predicted, the right one, and a loss.
hidden = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 120, width=32)),
    min_size=1,
    max_size=8,
)


def spans_in(drawn: list[list[tuple[str, str]]]) -> Compared:
    found, right = ([spans_of([tag[side] for tag in text]) for text in drawn] for side in (0, 1))
    return found, right


def of_texts(drawn: list[tuple[str, list[str]]]) -> Compared:
    found, right = zip(*drawn, strict=True)
    return [*found], [*right]


def of_hidden(drawn: list[tuple[int, int, float]]) -> Compared:
    rows = tensor(drawn)
    return rows[:, [0, 2]], rows[:, 1:2]
