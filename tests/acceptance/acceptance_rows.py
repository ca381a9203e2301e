"""The pruners of ``conf/pruner``, what each is held to, and why some are not held to all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from application import ROOT

if TYPE_CHECKING:
    from _pytest.mark import MarkDecorator

FILES = {file.stem: file for file in sorted((ROOT / "conf" / "pruner").glob("*.yaml"))}

NOTHING, ELEMENTS, UNITS, RANKS, BOTH = "nothing", "elements", "units", "ranks", "both"
#: What goes. A file that is not named here fails the first test.
KINDS = {
    "none": NOTHING,
    "fisher": ELEMENTS,
    "fixed": ELEMENTS,
    "frozen_movement": ELEMENTS,
    "magnitude": ELEMENTS,
    "movement": ELEMENTS,
    "platon": ELEMENTS,
    "soft_movement": ELEMENTS,
    "wanda": ELEMENTS,
    "attribution": UNITS,
    "dynamic_sparsification": UNITS,
    "structured": UNITS,
    "structured_gradient": UNITS,
    "structured_l0": UNITS,
    "structured_magnitude": UNITS,
    "structured_random": UNITS,
    "low_rank": RANKS,
    "low_rank_gradual": RANKS,
    "low_rank_late": RANKS,
    "combined": BOTH,
}
#: Those that cut layers while they are trained on.
CUTTING = [name for name, kind in KINDS.items() if kind in (UNITS, RANKS, BOTH)]
CUTTING.remove("dynamic_sparsification")
LEARNING_GATES = ("low_rank", "structured_l0")
#: Those that cut what they prune in the same step.
AT_ONCE = ("low_rank_late",)

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
    10: "copies and averages of checkpoints work while it prunes, averages of weights once it has",
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
