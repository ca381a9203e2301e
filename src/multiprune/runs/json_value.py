"""Read one typed value of a JSON file."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")


def value_at(content: Any, dotted: str, kind: type[T], *, name: str) -> T:
    """Return the value below keys that are joined by dots; whole numbers are floats too.

    Raises:
        ValueError: if there is none, or one of another type; ``name`` is that of the file.
    """
    value = content
    for key in dotted.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ValueError(f"{name} has no `{dotted}`")
        value = value[key]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"`{dotted}` of {name} must be a {kind.__name__}, but is {value!r}")
    return value
