"""Processes that end when the one that started them does, as after ``kill -9``."""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def end_with_parent(end: Callable[[], object] = lambda: os._exit(1)) -> None:
    """Call ``end``, in a thread, when the process that started this one has ended.

    That is not always the one that this was forked from, which libraries watch.
    """

    def watch() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
        end()

    threading.Thread(target=watch, daemon=True).start()
