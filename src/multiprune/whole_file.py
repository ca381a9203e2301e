"""Files that are there as a whole or not at all, also after a crash or on a full disk."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from safetensors import SafetensorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def whole_file(file: Path, *, moved_to: Path | None = None) -> Iterator[Path]:
    """Give a path beside ``file`` to write to, which takes its place once it is on the disk.

    What was there is moved to ``moved_to`` first, or else replaced.

    Raises:
        OSError: if it cannot be written; ``file`` is then as it was.
    """
    beside = file.with_name(f"{file.name}.writing")
    try:
        yield beside
        with beside.open("rb") as written:
            # Some file systems tell only now that they are full.
            os.fsync(written.fileno())
        if moved_to is not None and file.exists():
            file.replace(moved_to)
        beside.replace(file)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{file} must be writable, but: {error}.") from error
    finally:
        beside.unlink(missing_ok=True)
