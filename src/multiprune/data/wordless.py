"""Rows without a word, which cannot be encoded or labelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.tasks.columns import row_slices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from multiprune.tasks.rows import Rows
    from multiprune.tasks.task import Task


def wordless_rows(rows: Rows, task: Task, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return which rows are without a word."""
    # An empty text is read as the tokens around it, if there are some.
    if tokenizer.num_special_tokens_to_add(pair=len(task.text) > 1) or not task.examples_are_rows:
        return [part.first + row for part in row_slices(rows) for row in task.wordless(part)]
    return [row for part in row_slices(rows) for row in _unread(part, task, tokenizer)]


def _unread(rows: Rows, task: Task, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    task.check_columns(rows)
    read: Sequence[Sequence[int]] = tokenizer(
        *task.texts(rows), is_split_into_words=task.reads_words
    )["input_ids"]
    return [row for row, tokens in enumerate(read, rows.first) if not tokens]
