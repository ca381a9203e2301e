"""End a process that has imported torch at once."""

from __future__ import annotations

import atexit
import gc


def exit_quickly() -> None:
    """Have Python end without a last search for circular garbage.

    Among half a million objects of torch and transformers it searches several times: that takes 2 s
    of a core, or half a minute on a busy machine, after everything is done.
    """
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
