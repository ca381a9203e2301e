"""Bitext mining: find translations in two lists of sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch.nn import functional
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.tasks.languages import languages_of, with_averages
from multiprune.tasks.retrieval import Retrieval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from multiprune.tasks.retrieval import EncodedRows
    from multiprune.tasks.rows import Rows

#: As many cosines are in memory at a time.
_COSINES = 2**26


@dataclass(kw_only=True)
class Mining(Retrieval):
    """Finds the pairs of translations in a corpus in which most sentences may have none.

    The shared task of BUCC (Zweigenbaum et al. 2017), as XTREME scores it (Hu et al. 2020): pairs
    whose score reaches a threshold are mined, and compared with the true ones; the threshold of
    each language is the best one on its validation split. A row is a pair, or a sentence without a
    translation, or a translation without a sentence.

    Attributes:
        neighbors: by the mean of so many largest cosines of both sentences their cosine is divided,
            the ratio of Artetxe & Schwenk (2019); with 0, cosines are compared as they are.
    """

    splits: ClassVar[tuple[str, ...]] = ("validation", "test")

    neighbors: int = 0

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("neighbors", self.neighbors, at_least=0, whole=True)

    @override
    def check_rows(self, rows: Rows) -> None:
        """Raise a ValueError if a column is missing, a row is empty, or a language has no pair."""
        first, second = (self.column(rows, name) for name in self.text)
        paired = set()
        for row, language in enumerate(languages_of(rows, self.languages)):
            if not first[row] and not second[row]:
                raise ValueError(
                    f"Each row of {rows.origin} must hold a sentence in one of "
                    f"{', '.join(map(repr, self.text))}, but row {row} holds none."
                )
            if first[row] and second[row]:
                paired.add(language)
        if unpaired := sorted(set(self.languages) - paired):
            raise ValueError(f"{rows.origin} has no pair of translations in {', '.join(unpaired)}.")

    @override
    def scores(self, encoded: Mapping[str, EncodedRows]) -> dict[str, float]:
        """Return F1, precision and recall: means over languages, of each, and of each group."""
        found = {}
        for language in sorted(self.languages):
            validation, test = (self._mined(encoded[split], language) for split in self.splits)
            found[language] = test.compared(validation.best_threshold())
        return with_averages(found, self.language_groups)

    def _mined(self, encoded: EncodedRows, language: str) -> Mined:
        """Mine the sentences of one language."""
        languages = languages_of(encoded.rows, self.languages)
        first, second = (
            [row for row, one in enumerate(column) if one and languages[row] == language]
            for column in (self.column(encoded.rows, name) for name in self.text)
        )
        pairs, scores = mine(
            encoded.sentences[first], encoded.translations[second], neighbors=self.neighbors
        )
        right = [first[place] == second[other] for place, other in pairs]
        return Mined(scores, torch.tensor(right), len(set(first) & set(second)))


@dataclass(frozen=True)
class Mined:
    """Candidates with falling ``scores``, and which of them are ``right``.

    Attributes:
        true: the number of pairs that are translations, found or not.
    """

    scores: Tensor
    right: Tensor
    true: int

    def best_threshold(self) -> float:
        """Return the threshold that gives the best F1: halfway between two scores.

        Of equally good ones it is the highest; if all candidates are best, it is the last score.
        """
        taken = torch.arange(1, len(self.right) + 1)
        f1 = 2 * self.right.cumsum(0).double() / (taken + self.true)
        # Equal scores are taken together.
        f1[:-1][self.scores[:-1] == self.scores[1:]] = -1
        best = int(f1.argmax())
        return float(self.scores[best : best + 2].mean())

    def compared(self, threshold: float) -> dict[str, float]:
        """Return F1, precision and recall of the candidates whose score reaches ``threshold``."""
        taken = self.scores >= threshold
        right, count = int(self.right[taken].sum()), int(taken.sum())
        return {
            "f1": 2 * right / (count + self.true),
            "precision": right / max(count, 1),
            "recall": right / self.true,
        }


class Nearest(NamedTuple):
    """The largest cosines of each row, or ratios of them, and with which rows of the other list."""

    cosines: Tensor
    rows: Tensor


def mine(
    first: Tensor, second: Tensor, *, neighbors: int = 0
) -> tuple[list[tuple[int, int]], Tensor]:
    """Return pairs of rows of two lists of vectors, and their falling scores.

    Each row of either list proposes the best one of the other. Proposals are taken from the highest
    score down, unless one of the two rows is in a pair already ("max. score" of Artetxe & Schwenk
    2019). Mutual nearest neighbours are always among them.
    """
    first, second = (functional.normalize(one.float(), dim=-1) for one in (first, second))
    count = max(1, neighbors)
    there, back = nearest(first, second, count), nearest(second, first, count)
    if neighbors:
        there, back = _by_neighbors(there, back), _by_neighbors(back, there)
    rows, others = _best_row(there), _best_row(back)
    pairs = torch.cat([torch.stack([torch.arange(len(rows)), rows], 1),
                       torch.stack([others, torch.arange(len(others))], 1)])  # fmt: skip
    scores = torch.cat([there.cosines.amax(1), back.cosines.amax(1)]).double().cpu()
    order = scores.argsort(descending=True, stable=True)
    kept = order[_one_to_one(pairs[order].tolist())]
    return [(one, other) for one, other in pairs[kept].tolist()], scores[kept]


def nearest(first: Tensor, second: Tensor, count: int) -> Nearest:
    """Find for each row of ``first`` as many of ``second``, those with the largest products."""
    size = max(1, _COSINES // len(second))
    found = [
        (first[start : start + size] @ second.T).topk(min(count, len(second)))
        for start in range(0, len(first), size)
    ]
    cosines, rows = zip(*found, strict=True)
    return Nearest(torch.cat(cosines), torch.cat(rows))


def _by_neighbors(mine: Nearest, theirs: Nearest) -> Nearest:
    """Divide cosines by the mean of those of both sentences with their nearest ones."""
    means = mine.cosines.mean(1, keepdim=True) + theirs.cosines.mean(1)[mine.rows]
    return Nearest(mine.cosines / (means / 2), mine.rows)


def _best_row(nearest: Nearest) -> Tensor:
    return nearest.rows.gather(1, nearest.cosines.argmax(1, keepdim=True))[:, 0].cpu()


def _one_to_one(pairs: Sequence[Sequence[int]]) -> list[int]:
    """Return which pairs have no row in common with one that was taken before."""
    left: set[int] = set()
    right: set[int] = set()
    kept = []
    for number, (one, other) in enumerate(pairs):
        if one not in left and other not in right:
            left.add(one)
            right.add(other)
            kept.append(number)
    return kept
