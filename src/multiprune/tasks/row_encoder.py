"""Encode table rows to model inputs and labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from multiprune.tasks.columns import Columns, check_present, check_texts, check_values, row_slices
from multiprune.tasks.languages import LANGUAGE
from multiprune.tasks.rows import EXAMPLE

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from multiprune.tasks.rows import Rows


@dataclass(kw_only=True)
class RowEncoder(ABC):
    """Reads texts and labels of rows, and encodes them.

    Attributes:
        text: the columns that the encoder reads.
        label: the column that is learned.
        languages: of the rows, in their column ``lang``; empty for tasks without that column.
        parallel: the column whose value is the same in rows that say the same in several languages;
            None if each row says something else.
    """

    text: Sequence[str]
    label: str
    languages: Sequence[str] = ()
    parallel: str | None = None

    #: Whether an example is a row of the source, rather than made of parts of several.
    examples_are_rows: ClassVar[bool] = True
    #: Whether text columns hold lists of words rather than texts.
    reads_words: ClassVar[bool] = False
    #: How many text columns can be read.
    text_columns: ClassVar[Sequence[int]] = (1, 2)

    def __post_init__(self) -> None:
        if isinstance(self.text, str) or not isinstance(self.text, Sequence):
            raise ValueError(f"`text` must be a list of columns, but is {self.text!r}.")
        if len(self.text) not in self.text_columns:
            most = " or ".join(map(str, self.text_columns))
            raise ValueError(f"`text` must name {most} column(s), but names {list(self.text)}.")
        if self.parallel is not None and not self.languages:
            raise ValueError(
                f"`parallel` is for tasks with `languages`, but is {self.parallel!r} without any."
            )

    @abstractmethod
    def encode_labels(self, rows: Rows) -> list[Any]:
        """Return the labels of all rows as the loss wants them.

        Raises:
            ValueError: if a label lies outside the label space (names file, column and value).
        """

    def encode(
        self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> tuple[dict[str, list[Any]], int]:
        """Tokenize rows; return the columns of the encoded rows, and how many were truncated.

        Raises:
            ValueError: if a column is missing or a value does not fit (names file and column).
        """
        self.check_columns(rows)
        labels = self.encode_labels(rows)
        encoding = tokenizer(
            *self.texts(rows),
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
        columns = {name: list(values) for name, values in encoding.items()}
        truncated = sum(bool(one.overflowing) for one in encoding.encodings or [])
        return columns | {"labels": labels}, truncated

    def encode_parts(
        self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[tuple[dict[str, list[Any]], int]]:
        """Yield what ``encode`` returns of all rows, for some of them at a time."""
        for part in row_slices(rows):
            columns, truncated = self.encode(part, tokenizer, max_length)
            if EXAMPLE in columns:
                columns[EXAMPLE] = [part.first + example for example in columns[EXAMPLE]]
            yield columns, truncated

    def texts(self, rows: Rows) -> list[list[Any]]:
        """Return what the tokenizer reads of all rows: one list, or two whose entries are pairs."""
        return [rows.table[column][:] for column in self.text]

    @property
    def reads_beside(self) -> bool:
        """Whether several texts stand in one row, of which tokens attend to their own only."""
        return False

    @property
    def label_columns(self) -> Sequence[str]:
        """The columns that labels are read from."""
        return (self.label,)

    @property
    def columns(self) -> Columns:
        """All columns that the task reads."""
        others = [*self.label_columns, *filter(None, [self.parallel])]
        return Columns(text=self.text, others=others + [LANGUAGE] * bool(self.languages))

    @property
    def marks_unlabelled(self) -> bool:
        """Whether a label of -1 means that the label is not public, as it does on the hub."""
        return True

    def check_columns(self, rows: Rows) -> None:
        """Raise if a column of the task is missing or empty, or holds something else than texts."""
        names = self.columns.without(LANGUAGE).names
        check_present(names, rows.table.column_names, rows.origin)
        check_values(rows, names)
        check_texts(rows, self.text, words=self.reads_words)

    def wordless(self, rows: Rows) -> list[int]:  # noqa: ARG002
        """Return which rows have no word to answer for, whatever the tokenizer is."""
        return []

    def unread_words(self, table: Dataset) -> int:  # noqa: ARG002
        """Return how many words that have labels are in none of the encoded rows of a split."""
        return 0
