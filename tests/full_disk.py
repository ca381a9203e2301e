"""A disk on which no file can grow any more, without the rights to make one."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def full_disk(*, after: int) -> Iterator[None]:
    """Have this process fail to write more than ``after`` bytes to any file, as on a full disk.

    The bytes until then are written. The error is EFBIG instead of ENOSPC.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
