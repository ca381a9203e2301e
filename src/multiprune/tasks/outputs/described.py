"""Build an output from its description."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multiprune.tasks import outputs
from multiprune.tasks.outputs.output import Output
from multiprune.tasks.subclasses import subclasses

if TYPE_CHECKING:
    from collections.abc import Mapping


def output_from(description: Mapping[str, Any]) -> Output:
    """Return the output that a description is of, as ``heads.json`` has it.

    Raises:
        ValueError: if it is of a kind that is not known, or lacks what its kind needs.
    """
    try:
        kind = description["kind"]
        known = {
            one.kind: one
            for one in subclasses(Output, outputs.__name__)  # type: ignore[type-abstract]
            if "kind" in vars(one)
        }
        if kind not in known:
            raise ValueError(
                f"its kind {kind!r} is none of {', '.join(sorted(known))}: import the module that "
                "defines it first"
            )
        return known[kind].from_description(description)
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"A description does not say what a head answers: {reason}.") from error
