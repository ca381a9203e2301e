"""Rows of a split, and their identity after encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from datasets import Dataset

    from multiprune.tasks.columns import Columns

#: Marks a token that has no label of its own: special tokens and the rest of a word.
IGNORED = -100

#: Column of encoded rows that says which example a row is of, where an example has several.
EXAMPLE = "example"


@dataclass(frozen=True)
class Rows:
    """The rows of one split, where they came from, and a hash of what they hold.

    ``first`` is the number of the first one, where they are a part of the rows of a split.
    """

    table: Dataset
    origin: str
    fingerprint: str
    first: int = 0


class Source(Protocol):
    """Where the rows of a task come from."""

    def load(
        self,
        split: str,
        *,
        mirror: Path | None,
        languages: Sequence[str] | None = None,
        columns: Columns | None = None,
    ) -> Rows | None:
        """Return the rows of ``train``, ``validation`` or ``test``; None if there is no such split.

        ``mirror`` is the folder of a local mirror to read instead of the hub. ``languages`` are
        those whose rows will be used (None is all): rows in others may be left out. So may columns
        that are not among ``columns`` (None is all).
        """
