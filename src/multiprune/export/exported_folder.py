"""Write the folder of an exported model atomically, with digests of its weights."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from multiprune.export.digests import write_digests
from multiprune.runs.atomic import atomic_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def exported_folder(folder: Path, *, claim: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Give a folder to write a model into; ``claim`` and errors as those of ``atomic_folder``."""
    with atomic_folder(folder, claim=claim) as beside:
        yield beside
        write_digests(beside)
        # safetensors writes for the owner alone; what is shipped is as open as its surroundings.
        for file in beside.iterdir():
            file.chmod(beside.stat().st_mode & 0o666)
