"""Errors in user code that a configuration names, as one sentence."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from multiprune.message import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator


class UserCodeError(ValueError):
    """What the configuration names has failed, or was called with what it does not take."""


@contextmanager
def calling(part: object, what: str) -> Iterator[None]:
    """Say of an error in here that it is of ``part``, unless that is this package's.

    Raises:
        UserCodeError: one sentence, which begins with ``what``.
    """
    try:
        yield
    except Exception as error:
        # A defect of ours stays one.
        if _module(part).partition(".")[0] == "multiprune":
            raise
        kind = type(error).__name__
        raise UserCodeError(f"{what} failed with {kind}: {first_line(error)}") from error


def _module(part: object) -> str:
    # A partial function is what it was made of.
    function = getattr(part, "func", part)
    return str(getattr(function, "__module__", None) or type(function).__module__)
