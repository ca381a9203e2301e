"""How far masks overlap: between tasks and between seeds, position by position, against chance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from multiprune.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from multiprune.report.frame import Row

FILE = "masks.safetensors"

#: Bits that are counted at a time, of every mask at once: a megabyte of each as float32.
CHUNK = 1 << 18


@dataclass(frozen=True)
class Mask:
    """A boolean tensor, eight bits to a byte."""

    bits: NDArray[np.uint8]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, kept: NDArray[np.bool_]) -> Mask:
        """Pack a boolean array."""
        return cls(np.packbits(kept), kept.shape)

    @property
    def size(self) -> int:
        """The number of bits."""
        return int(np.prod(self.shape))


Masks = dict[str, Mask]


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


def write_masks(folder: Path, masks: Mapping[str, Tensor]) -> None:
    """Write what a run has kept, boolean tensors by path, as ``masks.safetensors``: bits."""
    packed = {path: Mask.of(mask.cpu().numpy()) for path, mask in masks.items()}
    shapes = json.dumps({path: mask.shape for path, mask in packed.items()})
    with whole_file(folder / FILE) as beside:
        save_file({path: mask.bits for path, mask in packed.items()}, beside, {"shapes": shapes})


def read_masks(row: Row) -> Masks:
    """Read what a run has kept, by path as in its densities.

    Raises:
        FileNotFoundError: if it has not saved its masks.
        ValueError: if nothing was pruned, or the file is damaged.
    """
    if not row.density:
        raise ValueError("nothing was pruned")
    file = row.path / FILE
    if not file.is_file():
        raise FileNotFoundError(f"it has no {FILE}")
    try:
        with safe_open(file, "np") as stored:
            shapes = json.loads((stored.metadata() or {}).get("shapes", "{}"))
            masks = {
                path: Mask(stored.get_tensor(path), tuple(shape)) for path, shape in shapes.items()
            }
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{FILE} must be whole, but: {error}") from error
    if differing := sorted(masks.keys() ^ row.density.keys()):
        raise ValueError(f"{FILE} must hold what was pruned, but {differing[0]} is not in both")
    return masks


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
