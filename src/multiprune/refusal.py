"""Refused input: one sentence, and exit status 2."""

from __future__ import annotations

import sys

from multiprune.message import printable

#: What stands behind the traceback of an error that no input should cause.
DEFECT = (
    "This may be a defect of multiprune: please report it, with the lines above and the command, "
    "to the project's issue tracker."
)


class FailedSweep(SystemExit):
    """The end of a sweep of which jobs failed: exit status 1."""


class Refusal(SystemExit):
    """The end of a command whose input is wrong; whoever started it has it said."""

    def __init__(self, sentence: str) -> None:
        super().__init__(2)
        self.sentence = sentence if sentence.endswith(".") else f"{sentence}."

    def __str__(self) -> str:
        """Return the sentence."""
        return f"error: {self.sentence}"

    def say(self) -> None:
        """Write the sentence for the user."""
        sys.stderr.write(f"{printable(str(self))}\n")
