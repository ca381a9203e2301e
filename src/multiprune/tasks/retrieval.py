"""Translation retrieval with an encoder's hidden states; nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch.nn import functional

from multiprune.arguments import check_number
from multiprune.tasks.columns import Columns, check_present, check_texts
from multiprune.tasks.languages import LANGUAGE, check_declaration, languages_of, with_averages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from multiprune.tasks.rows import Rows, Source


@dataclass(frozen=True)
class EncodedRows:
    """The rows of a split, and vectors of their sentences and translations, (rows, hidden) each.

    Those of a sentence that is missing are zero.
    """

    rows: Rows
    sentences: Tensor
    translations: Tensor


@dataclass(kw_only=True)
class Retrieval:
    """Finds the translation of each sentence among those of all sentences of its language.

    A sentence is the mean of its tokens' hidden states; the one with the largest cosine is found.

    Attributes:
        text: the columns of sentences and of their translations.
        splits: that are read.
        source: where the rows come from.
        languages: of the sentences, in the column ``lang``.
        language_groups: of languages, by name; scores are averaged over each.
        layer: whose states are compared, from 1; None is the last.
    """

    splits: ClassVar[tuple[str, ...]] = ("test",)

    text: Sequence[str]
    source: Source
    languages: Sequence[str]
    language_groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    layer: int | None = None

    def __post_init__(self) -> None:
        if len(self.text) != 2:
            raise ValueError(f"`text` must name 2 columns, but names {list(self.text)}.")
        if not self.languages:
            raise ValueError("Retrieval needs `languages`, which are empty.")
        if self.layer is not None:
            check_number("layer", self.layer, at_least=1, whole=True)
        check_declaration(self.languages, None, self.language_groups)

    @property
    def columns(self) -> Columns:
        """All columns that are read."""
        return Columns(text=self.text, others=[LANGUAGE])

    def check_rows(self, rows: Rows) -> None:
        """Raise a ValueError if a column is missing, or has no sentence in a row."""
        for column in self.text:
            values = self.column(rows, column)
            if not all(values):
                row = next(row for row, value in enumerate(values) if not value)
                raise ValueError(
                    f"Column {column!r} of {rows.origin} must hold a sentence in each row, but row "
                    f"{row} is {values[row]!r}."
                )
        languages_of(rows, self.languages)

    def column(self, rows: Rows, name: str) -> list[Any]:
        """Return the texts of a column, which must be there."""
        check_present([name], rows.table.column_names, rows.origin)
        check_texts(rows, [name], words=False)
        values: list[Any] = rows.table[name][:]
        return values

    def scores(self, encoded: Mapping[str, EncodedRows]) -> dict[str, float]:
        """Return the accuracy: the mean over languages, of each, and of each group.

        ``encoded`` holds each of ``splits``.
        """
        test = encoded["test"]
        by_language: dict[str, list[int]] = {}
        for row, language in enumerate(languages_of(test.rows, self.languages)):
            by_language.setdefault(language, []).append(row)
        found = {
            language: {"accuracy": accuracy(test.sentences[mine], test.translations[mine])}
            for language, mine in sorted(by_language.items())
        }
        return with_averages(found, self.language_groups)


def accuracy(sentences: Tensor, translations: Tensor) -> float:
    """Return the share of sentences whose translation, of the same place, has the largest cosine.

    Of equal cosines the first counts as the largest.
    """
    first, second = (functional.normalize(one.float(), dim=-1) for one in (sentences, translations))
    found = (first @ second.T).argmax(-1)
    return float((found == found.new_tensor(range(len(found)))).float().mean())
