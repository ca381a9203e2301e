"""Label spaces: names, and the ids that rows are learned by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def checked_labels(labels: Sequence[str]) -> list[str]:
    """Return the names of a label space: two or more, all different."""
    names = [str(label) for label in labels]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"`labels` must be two or more different names, but are {names}.")
    return names


def label_ids(
    values: Sequence[Any],
    labels: Sequence[str],
    *,
    column: str,
    origin: str,
    row: int | None = None,
) -> list[int]:
    """Turn label values, which are ids or names, to ids; all are of one ``row`` if that is given.

    Raises:
        ValueError: at the first value that is neither.
    """
    by_name = {name: index for index, name in enumerate(labels)}
    ids = []
    for place, value in enumerate(values):
        index = by_name.get(value, -1) if isinstance(value, str) else _whole(value)
        if not 0 <= index < len(labels):
            raise ValueError(
                f"Column {column!r} of {origin} must hold one of {len(labels)} labels "
                f"({', '.join(labels)}) or its id, but row {place if row is None else row} is "
                f"{value!r}."
            )
        ids.append(index)
    return ids


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and float(value).is_integer() else -1
