"""Checks of the texts that users pass to an exported model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

#: One text, or several, of which each is a string or a list of words.
Texts = str | Sequence[Any]


def listed(texts: Any, what: str, *, words: bool = False) -> list[Any]:
    """Return texts as a list; one text by itself is a list of one.

    Raises:
        TypeError: if something is no text, nor, with ``words``, a list of words.
    """
    if not isinstance(texts, Iterable):
        raise TypeError(f"The {what} must be a string or several, but are {texts!r}.")
    found = [texts] if isinstance(texts, str) else list(texts)
    for number, one in enumerate(found):
        is_text = isinstance(one, str)
        if words and not is_text and isinstance(one, Sequence):
            is_text = all(isinstance(word, str) for word in one)
        if not is_text:
            expected = "a string or a list of words" if words else "a string"
            raise TypeError(
                f"Each of the {what} must be {expected}, but number {number} is {one!r}."
            )
    return found


def columns_given(
    task: str, columns: Sequence[str], texts: Any, pairs: Any, *, words: bool = False
) -> tuple[list[Any], list[str] | None]:
    """Return texts and their pairs as lists.

    Raises:
        TypeError: if something is no text.
        ValueError: if there are as many lists as the task does not read, or of different lengths.
    """
    given = 1 if pairs is None else 2
    if given != len(columns):
        hint = "pass the second texts as `pairs`" if given == 1 else "leave out `pairs`"
        raise ValueError(f"The task {task!r} reads {' and '.join(columns)}: {hint}.")
    first = listed(texts, "texts", words=words)
    if pairs is None:
        return first, None
    second = listed(pairs, "pairs")
    if len(first) != len(second):
        raise ValueError(
            f"`texts` and `pairs` must have the same length, but have {len(first)} and "
            f"{len(second)}."
        )
    return first, second
