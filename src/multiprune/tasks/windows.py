"""Overlapping windows of long contexts, with answers as token positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

#: For each context the characters where an answer starts and ends; None if that is not known.
Spans = Sequence[tuple[int, int] | None]

_OUTSIDE = -1


@dataclass(frozen=True)
class Windows:
    """What an encoder reads of some questions and contexts.

    Attributes:
        inputs: of the encoder, a list a window.
        examples: which question a window is of.
        labels: pairs of numbers in one row a window: the tokens where the answer starts and ends,
            both 0 if it is not in the window; the characters of that; and the characters of each
            token, -1 outside the context.
        cut: how many questions were cut.
    """

    inputs: dict[str, list[Any]]
    examples: list[int]
    labels: list[NDArray[np.int32]]
    cut: int


def context_windows(
    questions: Sequence[str],
    contexts: Sequence[str],
    spans: Spans,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    overlap: int,
    question_length: int,
    longest: int | None = None,
) -> Windows:
    """Tokenize each question with its context, in as many windows as that takes.

    Neighbouring windows share ``overlap`` tokens of the context, or half of what the longest
    question leaves for it, which has ``longest`` tokens if these are not all questions.

    Raises:
        ValueError: if the tokenizer does not tell which characters a token is made of, or windows
            have no room for a context.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            "Question answering needs a fast tokenizer (with character offsets), but this is "
            f"a {type(tokenizer).__name__}."
        )
    shortened, longest_here = _shortened(questions, tokenizer, question_length)
    longest = longest_here if longest is None else longest
    room = max_length - longest - tokenizer.num_special_tokens_to_add(pair=True)
    if room < 1:
        raise ValueError(
            "`data.max_length` must leave room for a context behind a question, but it is "
            f"{max_length} and a question has {longest} tokens."
        )
    encoding = tokenizer(
        shortened,
        list(contexts),
        truncation="only_second",
        max_length=max_length,
        stride=min(overlap, room // 2),
        return_overflowing_tokens=True,
        return_attention_mask=False,
    )
    examples = [int(one) for one in encoding.pop("overflow_to_sample_mapping")]
    labels = [
        _labels(
            window.offsets,
            window.sequence_ids,
            spans[example],
            is_first=before != example,
            is_last=behind != example,
        )
        for window, example, before, behind in zip(
            encoding.encodings or [],
            examples,
            [None, *examples[:-1]],
            [*examples[1:], None],
            strict=True,
        )
    ]
    inputs = {name: list(values) for name, values in encoding.items()}
    cut = sum(ours != theirs for ours, theirs in zip(shortened, questions, strict=True))
    return Windows(inputs, examples, labels, cut)


def longest_question(
    questions: Sequence[str], tokenizer: PreTrainedTokenizerBase, most: int
) -> int:
    """Return how many tokens are read of the longest of some questions, at most ``most``."""
    return _shortened(questions, tokenizer, most)[1]


def _shortened(
    questions: Sequence[str], tokenizer: PreTrainedTokenizerBase, most: int
) -> tuple[list[str], int]:
    """Cut questions to ``most`` tokens; return them, and how many tokens the longest has."""
    encodings = tokenizer(list(questions), add_special_tokens=False).encodings or []
    lengths = [len(one.ids) for one in encodings]
    shortened = [
        question if length <= most else question[: one.offsets[most - 1][1]]
        for question, one, length in zip(questions, encodings, lengths, strict=True)
    ]
    return shortened, min(most, max(lengths))


def _labels(
    offsets: Sequence[tuple[int, int]],
    sequences: Sequence[int | None],
    span: tuple[int, int] | None,
    *,
    is_first: bool,
    is_last: bool,
) -> NDArray[np.int32]:
    characters = np.array(offsets, np.int32)
    of_context = np.array([one == 1 for one in sequences])
    characters[~of_context] = _OUTSIDE
    inside = np.flatnonzero(of_context)
    tokens = None
    if span is not None and len(inside):
        # At the ends of a context may stand characters that no token is made of.
        start = max(span[0], characters[inside[0], 0]) if is_first else span[0]
        end = min(span[1], characters[inside[-1], 1]) if is_last else span[1]
        tokens = _tokens_of(characters[inside], (start, end))
    answer = (0, 0) if tokens is None else (inside[tokens[0]], inside[tokens[1]])
    labels: NDArray[np.int32] = np.concatenate([[answer], [span or (0, 0)], characters]).astype(
        np.int32
    )
    return labels.ravel()


def _tokens_of(
    characters: NDArray[np.int32], span: tuple[int, int]
) -> tuple[np.intp, np.intp] | None:
    """Return the first and the last token of a span; None unless they are all there."""
    start, end = span
    if characters[0, 0] > start or characters[-1, 1] < end:
        return None
    places = np.flatnonzero((characters[:, 1] > start) & (characters[:, 0] < end))
    return (places[0], places[-1]) if len(places) else None
