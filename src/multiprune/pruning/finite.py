"""Refuse NaN scores before they are ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from multiprune.pruning.removal import BLOCKS, HEAD_DIMENSIONS, HEADS, LAYERS, NEURONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from multiprune.pruning.importance import Scores
    from multiprune.pruning.removal import Kept


def refuse_nan(what: str, tensors: Mapping[str, Sequence[Tensor]], when: str) -> None:
    """Raise a FloatingPointError with the first name of which a tensor holds NaN.

    ``what`` says what the tensors are, ``when`` at which step, if that is known.
    """
    named = {name: [one.isnan().any() for one in some] for name, some in tensors.items() if some}
    if not named:
        return
    holding = torch.stack([torch.stack(some).any() for some in named.values()]).tolist()
    if any(holding):
        names = [name for name, one in zip(named, holding, strict=True) if one]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise FloatingPointError(
            f"{what} of {names[0]}{more} are NaN at a ranking{when}: training has diverged, so "
            "lower the learning rate or clip gradients."
        )


def compared_scores(
    scores: Scores, kept: Kept, granularity: Sequence[str]
) -> list[Float[Tensor, "..."]]:
    """Return the scores of one layer that a ranking compares: of what is there and may go."""
    if kept.dropped:
        return []
    heads = kept.heads[:, None]
    found = {
        HEADS: [scores.heads[kept.heads]],
        NEURONS: [scores.neurons[kept.neurons]],
        HEAD_DIMENSIONS: [
            scores.query_key[kept.query_key & heads],
            scores.value[kept.value & heads],
        ],
        BLOCKS: [scores.blocks[kept.blocks]],
        LAYERS: [scores.layer],
    }
    return [one for kind in granularity for one in found[kind]]
