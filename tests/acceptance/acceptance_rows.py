"""Which acceptance test holds which pruner to its promise, and why some are not held to some."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from acceptance_world import CUTTING, FILES, KINDS

if TYPE_CHECKING:
    from _pytest.mark import MarkDecorator

PROMISES = {
    1: "stopped at any step and resumed, a run ends as one that was not stopped",
    2: "all ranks hold the same masks, which are those of one process",
    3: "what is kept is what was asked for: to the element, or the next group does not fit",
    4: "tied tensors are counted and masked once",
    5: "pruned weights are exactly 0 after every optimizer step",
    6: "embeddings, heads, LayerNorm and biases are out of scope, and the ledger says so",
    7: "an exported model answers the same where multiprune is not installed",
    8: "after a cut the optimizer owns every parameter, and nothing else",
    9: "masks take a byte a weight, and pruning works once an optimizer step",
    10: "copies, averages of weights and averages of checkpoints work while it prunes",
}

NOTHING_PRUNED = "it prunes nothing"
LARGER_PARTS = "weights that the smallest part lacks are those of larger parts, which are trained"
NOTHING_CUT = "it changes no shape while it trains"

#: Why a pruner has no row, by the number of the promise and the pruner.
NO_ROW: dict[tuple[int, str], str] = {
    (5, "none"): NOTHING_PRUNED,
    (5, "dynamic_sparsification"): LARGER_PARTS,
    **{(8, name): NOTHING_CUT for name in KINDS if name not in CUTTING},
}


def rows(promise: int) -> MarkDecorator:
    """Hold every pruner of ``conf/pruner`` to a promise, but for those that ``NO_ROW`` names."""
    assert FILES, "conf/pruner holds no pruners"
    held = [name for name in FILES if (promise, name) not in NO_ROW]
    return pytest.mark.parametrize("name", held)
