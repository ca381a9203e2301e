"""The one sentence that an error is shown as."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """Return the first line of an error that says something; its type, if none does.

    A line that ends in a colon says it in the next.
    """
    said = [stripped for line in str(error).splitlines() if (stripped := line.strip())]
    if len(said) > 1 and said[0].endswith(":"):
        return f"{said[0]} {said[1]}"
    return said[0] if said else type(error).__name__
