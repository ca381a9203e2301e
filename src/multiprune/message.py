"""The one sentence that an error is shown as."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """Return the first line of an error that says something; its type, if none does."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
