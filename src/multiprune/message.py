"""Errors as one sentence, and text made printable for a terminal."""

from __future__ import annotations

import re
import signal

# What a terminal obeys, or hides by: control characters but tab and newline, and changes of the
# direction of writing.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def first_line(error: BaseException) -> str:
    """Return the first line of an error that says something; its type, if none does.

    A line that ends in a colon says it in the next.
    """
    said = [stripped for line in str(error).splitlines() if (stripped := line.strip())]
    if len(said) > 1 and said[0].endswith(":"):
        return f"{said[0]} {said[1]}"
    return said[0] if said else type(error).__name__


def printable(text: str) -> str:
    """Return text whose control characters, such as escape, are spelt out as Python would."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def how_it_ended(code: int) -> str:
    """Return in words how a process with this return code, negative for a signal, has ended."""
    if code >= 0:
        return f"ended with exit status {code}, and what it said stands above"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
