"""End quietly when standard output is a closed pipe, as behind ``| head``."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def ends_with_its_reader() -> Iterator[None]:
    """End with exit status 1, as programs of rich do, where standard output is read no more.

    What is still to be written is written here: when Python ends, it would be too late to say
    nothing about it.
    """
    try:
        try:
            yield
        finally:
            # Python has none where it was closed before, as by `>&-`.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError as error:
        # Nothing is left that a last flush could fail at.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        raise SystemExit(1) from error
