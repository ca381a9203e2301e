"""Groups of weights that are pruned together: elements, rows, blocks, N of M."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Float32, Int, Shaped
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from multiprune.arguments import check_number
from multiprune.pruning.select import keep_largest, keep_largest_groups


class Groups(ABC):
    """Turns the scores of weights into masks, under a constraint on which may be kept together.

    Masks for a smaller number, from scores that are 0 where the last masks pruned and above 0
    elsewhere, never keep what was pruned: magnitude pruning relies on it.
    """

    @abstractmethod
    def check(self, shapes: Mapping[str, Sequence[int]], kept: int) -> None:
        """Refuse tensors, or a number of weights to keep of them, that the groups do not fit.

        ``shapes`` maps the paths of tensors that are ranked together to their shapes.

        Raises:
            ValueError: if ``select`` could not keep its promise for them.
        """

    def largest_group(self, shapes: Sequence[Sequence[int]]) -> int:  # noqa: ARG002
        """Return how many weights of tensors of such shapes are kept or pruned as one, at most."""
        return 1

    @abstractmethod
    def select(
        self, scores: Sequence[Float[Tensor, "..."]], kept: int
    ) -> list[Bool[Tensor, "..."]]:
        """Return a mask for each tensor of scores that together keep at most ``kept`` weights.

        All tensors are ranked together; less than one group is missing from ``kept``.
        """


class Elements(Groups):
    """Single weights: exactly the ``kept`` largest scores."""

    @override
    def check(self, shapes: Mapping[str, Sequence[int]], kept: int) -> None:
        pass

    @override
    def select(
        self, scores: Sequence[Float[Tensor, "..."]], kept: int
    ) -> list[Bool[Tensor, "..."]]:
        return keep_largest(scores, kept)


class Rows(Groups):
    """The same fraction of every row of every matrix: only weights of one row are compared.

    A row holds what leads to one output. Exact to the weight; ties are broken by position.
    """

    @override
    def check(self, shapes: Mapping[str, Sequence[int]], kept: int) -> None:
        for path, shape in shapes.items():
            _require_matrix("Rows", path, shape)

    @override
    def select(
        self, scores: Sequence[Float[Tensor, "..."]], kept: int
    ) -> list[Bool[Tensor, "..."]]:
        shares = row_shares(kept, [score.shape[1] for score in scores for _ in range(len(score))])
        by_matrix = torch.split(torch.tensor(shares), [len(score) for score in scores])
        return [
            self.largest(score, share.to(score.device)[:, None])
            for score, share in zip(scores, by_matrix, strict=True)
        ]

    def largest(
        self, scores: Float[Tensor, "rows columns"], shares: Int[Tensor, "rows 1"]
    ) -> Bool[Tensor, "rows columns"]:
        """Return the mask of as many largest scores of every row, the first of equals first."""
        best = scores.topk(int(shares.max()), dim=1).values
        if not best.numel():
            return torch.zeros_like(scores, dtype=torch.bool)
        threshold = best.gather(1, (shares - 1).clamp(min=0))
        above, equal = scores > threshold, scores == threshold
        left = shares - above.sum(1, keepdim=True)
        return (above | (equal & (equal.cumsum(1) <= left))) & (shares > 0)


def row_shares(total: int, sizes: Sequence[int]) -> list[int]:
    """Split ``total`` in proportion to ``sizes``, so that no share falls when ``total`` grows.

    The method of Webster and Sainte-Lague, in which the first of equals come first.
    """
    rows = Counter(sizes)
    levels = sorted(((2 * level + 1) / size, size) for size in rows for level in range(size))
    shares, last = dict.fromkeys(rows, 0), 0
    for _, size in levels:
        if rows[size] > total:
            last = size
            break
        total -= rows[size]
        shares[size] += 1
    found = [shares[size] for size in sizes]
    some = [row for row, size in enumerate(sizes) if size == last]
    for row in some[:total]:
        found[row] += 1
    return found


class Blocks(Groups):
    """Square blocks of ``size`` rows and columns; those at the far edges may be smaller.

    A block scores the mean of its weights' scores, so that blocks of different size compare, and
    costs the number of its weights.
    """

    def __init__(self, *, size: int) -> None:
        check_number("size", size, at_least=1, whole=True)
        self.size = size

    @override
    def check(self, shapes: Mapping[str, Sequence[int]], kept: int) -> None:
        for path, shape in shapes.items():
            _require_matrix("Blocks", path, shape)
            largest = self.largest_group([shape])
            if kept < largest:
                raise ValueError(
                    f"A budget must hold at least one block, but keeps {kept:,} weights where a "
                    f"block of {path} of shape {tuple(shape)} has {largest:,}."
                )

    @override
    def largest_group(self, shapes: Sequence[Sequence[int]]) -> int:
        return max(min(self.size, rows) * min(self.size, columns) for rows, columns in shapes)

    @override
    def select(
        self, scores: Sequence[Float[Tensor, "..."]], kept: int
    ) -> list[Bool[Tensor, "..."]]:
        means = [self.means(score) for score in scores]
        costs = [self.costs(score) for score in scores]
        blocks = keep_largest_groups(means, costs, kept)
        return [
            self.spread(block, score.shape) for block, score in zip(blocks, scores, strict=True)
        ]

    def means(
        self, matrix: Float[Tensor, "rows columns"]
    ) -> Float32[Tensor, "block_rows block_columns"]:
        """Return the mean of each block of ``matrix``."""
        # In ceiling mode, windows that reach over an edge count only what is inside.
        return F.avg_pool2d(matrix.float().unsqueeze(0), self.size, ceil_mode=True).squeeze(0)

    def costs(
        self, matrix: Float[Tensor, "rows columns"]
    ) -> Int[Tensor, "block_rows block_columns"]:
        """Return the number of weights of each block of ``matrix``."""
        sides = []
        for length in matrix.shape:
            starts = torch.arange(0, length, self.size, device=matrix.device)
            sides.append((length - starts).clamp_(max=self.size))
        return torch.outer(*sides)

    def spread(
        self, blocks: Shaped[Tensor, "block_rows block_columns"], shape: Sequence[int]
    ) -> Shaped[Tensor, "{shape[0]} {shape[1]}"]:
        """Return a matrix of ``shape`` that holds at each weight what ``blocks`` has for it."""
        columns = blocks.repeat_interleave(self.size, 1)[:, : shape[1]]
        return columns.repeat_interleave(self.size, 0)[: shape[0]]


class NofM(Groups):
    """At most ``n`` of every ``m`` consecutive weights of a row, as 2:4 in NVIDIA's sparse cores.

    Rows run along the input dimension. While more than n/m of all weights stay, those go that are
    not among the ``n`` largest of their ``m``, smallest score first, so that at n/m every ``m``
    weights keep exactly ``n``; below it go the smallest of the rest. Exact to the weight, and ties
    are broken by position.
    """

    def __init__(self, *, n: int, m: int) -> None:
        check_number("m", m, at_least=2, whole=True)
        check_number("n", n, at_least=1, below=m, whole=True)
        self.n, self.m = n, m

    @override
    def check(self, shapes: Mapping[str, Sequence[int]], kept: int) -> None:
        dense = 0
        for path, shape in shapes.items():
            _require_matrix(f"{self.n}:{self.m} groups", path, shape)
            if shape[1] % self.m:
                raise ValueError(
                    f"The input dimension must be divisible by {self.m} for {self.n}:{self.m} "
                    f"groups, but {path} has shape {tuple(shape)}."
                )
            dense += shape[0] * shape[1]
        most = dense // self.m * self.n
        if most < kept < dense:
            raise ValueError(
                f"A budget for {self.n}:{self.m} groups must keep at most {most:,} of {dense:,} "
                f"weights, or the pattern is not reached, but keeps {kept:,}."
            )

    @override
    def select(
        self, scores: Sequence[Float[Tensor, "..."]], kept: int
    ) -> list[Bool[Tensor, "..."]]:
        masks = [self.largest(score) for score in scores]
        others = kept - sum(score.numel() // self.m * self.n for score in scores)
        if others >= 0:
            places = [~mask for mask in masks]
        else:
            places, others = masks, kept
            masks = [torch.zeros_like(mask) for mask in masks]
        chosen = [score[place] for score, place in zip(scores, places, strict=True)]
        for mask, place, keep in zip(masks, places, keep_largest(chosen, others), strict=True):
            mask[place] = keep
        return masks

    def largest(self, scores: Float[Tensor, "rows columns"]) -> Bool[Tensor, "rows columns"]:
        """Return the mask of the ``n`` largest scores of every ``m``, the first of equals first."""
        # Counting the larger ones is several times as fast as sorting so many short rows.
        columns = scores.reshape(len(scores), -1, self.m).unbind(-1)
        masks = []
        for index, column in enumerate(columns):
            rank = torch.zeros_like(column, dtype=torch.int16)
            for before in columns[:index]:
                rank += before >= column
            for after in columns[index + 1 :]:
                rank += after > column
            masks.append(rank < self.n)
        return torch.stack(masks, -1).flatten(1)


def _require_matrix(groups: str, path: str, shape: Sequence[int]) -> None:
    if len(shape) != 2:
        raise ValueError(f"{groups} need matrices, but {path} has shape {tuple(shape)}.")
