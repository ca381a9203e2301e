"""How far masks overlap: between tasks and between seeds, position by position, against chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from multiprune.runs.masks import Mask, Masks

#: Bits that are counted at a time, of every mask at once: a megabyte of each as float32.
CHUNK = 1 << 18


@dataclass(frozen=True)
class Counts:
    """How many bits every two of several masks share; counts of several tensors add up.

    Attributes:
        both: shape (masks, masks): bits set in both; the diagonal holds the size of each.
        chance: the same as expected of independent uniform masks of these sizes: a b / n.
        size: n, the number of bits.
    """

    both: NDArray[np.float64]
    chance: NDArray[np.float64]
    size: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.both + other.both, self.chance + other.chance, self.size + other.size)

    @property
    def density(self) -> NDArray[np.float64]:
        """Shape (masks,)."""
        return self.both.diagonal() / self.size

    def jaccard(self) -> NDArray[np.float64]:
        """Return |A and B| / |A or B|, of shape (masks, masks); nan where both are empty."""
        return self._over_union(self.both)

    def chance_jaccard(self) -> NDArray[np.float64]:
        """Return what :meth:`jaccard` is by chance; see :func:`expected_jaccard`."""
        return self._over_union(self.chance)

    def _over_union(self, shared: NDArray[np.float64]) -> NDArray[np.float64]:
        kept = self.both.diagonal()
        union = kept[:, None] + kept - shared
        return np.divide(shared, union, out=np.full_like(union, np.nan), where=union > 0)


def expected_jaccard(first: float, second: float) -> float:
    """Return the Jaccard index of independent uniform masks of densities p and q in (0, 1].

    p q / (p + q - p q): the expected number of shared bits over that of bits in either. The mean of
    the quotient itself differs from it by O(1/n) in n bits, since the number of shared bits is
    hypergeometric with a variance of at most p q (1-p) (1-q) n^2 / (n-1).
    """
    if not (0 < first <= 1 and 0 < second <= 1):
        raise ValueError(f"Densities must be in (0, 1], but are {first} and {second}.")
    return first * second / (first + second - first * second)


def count_shared(masks: Sequence[Mask]) -> Counts:
    """Count what every two masks of one tensor share.

    Raises:
        ValueError: if their shapes differ.
    """
    if len({one.shape for one in masks}) != 1:
        raise ValueError(
            f"Masks must have one shape, but have {sorted({one.shape for one in masks})}."
        )
    both = np.zeros((len(masks), len(masks)))
    for start in range(0, len(masks[0].bits), CHUNK // 8):
        packed = np.stack([one.bits[start : start + CHUNK // 8] for one in masks])
        # float32 counts exactly up to 2^24, far more than a chunk has, and multiplies fastest.
        bits = np.unpackbits(packed, axis=1).astype(np.float32)
        both += bits @ bits.T
    kept = both.diagonal()
    return Counts(both, np.outer(kept, kept) / masks[0].size, masks[0].size)


def count_by_path(masks: Sequence[Masks]) -> dict[str, Counts]:
    """Count what every two models share, tensor by tensor.

    Raises:
        ValueError: if they differ in their tensors, or in the shape of one.
    """
    for other in masks[1:]:
        if differing := sorted(masks[0].keys() ^ other.keys()):
            raise ValueError(f"Masks must be of the same tensors, but only one has {differing[0]}.")
    return {path: count_shared([one[path] for one in masks]) for path in masks[0]}


def pooled(counts: Mapping[str, Counts]) -> Counts:
    """Add the counts of all tensors up."""
    first, *others = counts.values()
    for one in others:
        first = first + one
    return first
