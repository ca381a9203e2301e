"""Weighted low-rank approximation, by importance of outputs and inputs.

An error ``D`` of a matrix costs ``norm(diag(rows) D root) ** 2``. With ``root root' = E[x x']``
over the inputs ``x`` that is the expected squared error of the outputs (whitening: Wang et al.
(2024), "SVD-LLM"; Chen et al. (2021), "DRONE"), and with ``rows`` from squared gradients the
expected rise of the loss (Hsu et al. (2022), "Language model compression with weighted low-rank
factorization"). The singular value decomposition of ``diag(rows) W root`` is best for both at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor


class Decomposition(NamedTuple):
    """The left singular vectors of a weighted matrix, and its squared singular values.

    Leaving out the last ranks costs the sum of their squared values.
    """

    vectors: Float64[Tensor, "out ranks"]
    squares: Float64[Tensor, "ranks"]


def decompose(
    weight: Float[Tensor, "out in"],
    rows: Float64[Tensor, "out"] | None = None,
    root: Float64[Tensor, "in in"] | None = None,
) -> Decomposition:
    """Decompose ``diag(rows) W root``, in float64; what is None is the identity."""
    weighted = weight.double()
    weighted = weighted if rows is None else rows[:, None] * weighted
    weighted = weighted if root is None else weighted @ root
    vectors, values, _ = torch.linalg.svd(weighted, full_matrices=False)
    return Decomposition(vectors, values.square())


def truncate(
    weight: Float[Tensor, "out in"],
    vectors: Float64[Tensor, "out kept"],
    rows: Float64[Tensor, "out"] | None = None,
) -> Float[Tensor, "out in"]:
    """Return the matrix of low rank whose weighted error is least, from its left singular vectors.

    With ``M = diag(rows) W root`` the best approximation of ``M`` is ``U U' M``, so that of ``W``
    is ``diag(1 / rows) U U' diag(rows) W``: the root need not be inverted.
    """
    weighted = weight.double()
    weighted = weighted if rows is None else rows[:, None] * weighted
    nearest = vectors @ (vectors.T @ weighted)
    nearest = nearest if rows is None else nearest / rows[:, None]
    return nearest.to(weight.dtype)


def row_weights(fisher: Float[Tensor, "out"], damping: float) -> Float64[Tensor, "out"]:
    """Return ``r_i = sqrt(sum_j F_ij)``, scaled to a mean square of 1, from the sums over ``j``.

    ``damping`` times the mean is added to each square, so that none is 0. Zeros alone give ones.
    """
    mean = fisher.double().mean()
    squares = torch.where(mean > 0, fisher.double() / mean, 1.0)
    return ((squares + damping) / (1 + damping)).sqrt()


def input_root(moment: Float[Tensor, "in in"], damping: float) -> Float64[Tensor, "in in"]:
    """Return the Cholesky factor of a second moment, scaled to a mean diagonal of 1.

    ``damping`` is added to the diagonal, which then is scaled back: directions in which too few
    inputs were read to know are not free. Zeros alone give the identity.
    """
    mean = moment.double().diagonal().mean()
    identity = torch.eye(len(moment), dtype=torch.float64, device=moment.device)
    scaled = torch.where(mean > 0, moment.double() / mean, identity)
    factor: Tensor = torch.linalg.cholesky((scaled + damping * identity) / (1 + damping))
    return factor


def closing_prices(
    losses: Float64[Tensor, "ranks"], cost: int, dense: int
) -> Float64[Tensor, "ranks"]:
    """Return what closing each rank of a matrix costs for each parameter that this saves.

    ``losses`` are those of the ranks, the largest first, ``cost`` the parameters of a rank and
    ``dense`` those of the whole matrix. The first closings save nothing, as factors of so many
    ranks are no smaller than the dense matrix: so the last ranks have a price in common, the lowest
    for which any number of them can go. The first rank always stays: it has no price. Prices never
    rise from one rank to the next, so closing in ascending order of price, over all matrices, loses
    least for what has been saved each time that no group is split (the lower convex hull of loss
    over parameters).
    """
    prices = losses / cost
    prices[0] = torch.inf
    if len(losses) == 1:
        return prices
    kept = torch.arange(len(losses), device=losses.device)
    lost = losses.flip(0).cumsum(0).flip(0)  # of all ranks from each one on
    saved = dense - kept * cost
    together = torch.where((saved > 0) & (kept > 0), lost / saved, torch.inf)
    first = int(together.argmin())
    prices[first:] = together[first]
    return prices
