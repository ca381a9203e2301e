"""Models that are published with their own code, which is run only where that is allowed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def refused(source: str, allowed_by: str) -> Iterator[None]:
    """Say in one sentence that ``source`` needs its own code, and which key allows it.

    Raises:
        ValueError: if that code would have had to be run.
    """
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{source} is loaded by code of its own, which is not run; {allowed_by} allows it."
        ) from error
