"""Check the settings of a pruner."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING

from multiprune.pruning.element_wise import ElementWisePruner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from multiprune.pruning.pruner import Pruner


def unknown_setting(method: type[Pruner], names: Iterable[str]) -> ValueError | None:
    """Return an error about the first of ``names`` that ``method`` does not take, if any."""
    known, of_weights = (
        [name for name in signature(one).parameters if name != "budget"]
        for one in (method, ElementWisePruner)
    )
    unknown = sorted(set(names) - set(known))
    if not unknown:
        return None
    has = f"which has {', '.join(known)}" if known else "which has none"
    others = "; pruners of weights have it, as pruner=magnitude" if unknown[0] in of_weights else ""
    return ValueError(
        f"`pruner.{unknown[0]}` is not a setting of {method.__name__}, {has}{others}."
    )
