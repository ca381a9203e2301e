"""Word labels packed with the word's position into one integer.

Windows of a document are answered in any order; places put the answers back into that of its words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprune.tasks.rows import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

_TAGS = 1 << 16


def word_label(tag: int, word: int) -> int:
    """Return the label of the ``word``-th word of a document."""
    return word * _TAGS + tag


def unread(label: int) -> int:
    """Return how encoded rows mark the label of a word that no token stands for; and back."""
    return IGNORED - 1 - label


def tags_of(labels: Tensor) -> Tensor:
    """Return the tags of labels, ``IGNORED`` where there is none."""
    return labels.where(labels < 0, labels % _TAGS)


def words_of(labels: Tensor) -> Tensor:
    """Return the places of words in their documents."""
    return labels // _TAGS
