"""Folders that are there as a whole or not at all, also after a crash or on a full disk."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from multiprune.export.digests import write_digests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LEFTOVER = re.compile(r"\.(?P<name>.+)-[0-9a-f]{32}")


@contextmanager
def written_as_a_whole(
    folder: Path, *, claim: Callable[[Path], None] | None = None
) -> Iterator[Path]:
    """Give a folder to write into, which takes its place at ``folder`` if nothing fails.

    Digests of the weights in it are added. What processes that were killed have left of writing
    ``folder`` is removed. ``claim`` is called with what was written, on the disk, before that takes
    the place of what is there; it raises if that must stay. Without it, nothing may be there.

    Raises:
        OSError: if something cannot be written, or there is something at ``folder`` already.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for one in leftovers(folder.parent, folder.name):
        shutil.rmtree(one, ignore_errors=True)
    beside, mark = _new_folder(folder)
    try:
        yield beside
        write_digests(beside)
        # safetensors writes for the owner alone; what is shipped is as open as its surroundings.
        for file in beside.iterdir():
            file.chmod(beside.stat().st_mode & 0o666)
        if claim is not None:
            claim(beside)
            _put_aside(folder)
        _move(beside, folder)
    except SafetensorError as error:
        raise OSError(f"{folder} must be writable, but: {error}.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        os.close(mark)


def leftovers(parent: Path, name: str | None = None) -> list[Path]:
    """Return folders in ``parent`` that a process has begun to write, as ``name``, and never will.

    Those that a living process writes to are none.
    """
    try:
        found = [
            one
            for one in parent.iterdir()
            if (match := _LEFTOVER.fullmatch(one.name)) and name in (None, match["name"])
        ]
    except OSError:
        return []
    return sorted(one for one in found if _is_abandoned(one))


def _new_folder(folder: Path) -> tuple[Path, int]:
    """Make a folder beside ``folder``, and mark it as written to for as long as this process is."""
    while True:
        beside = _beside(folder)
        beside.mkdir()
        mark = os.open(beside, os.O_RDONLY)
        try:
            fcntl.flock(mark, fcntl.LOCK_EX)
        except OSError:
            # Of a file system without locks, no leftovers are found either.
            return beside, mark
        # Another process may have taken it for a leftover before it was marked.
        if beside.is_dir():
            return beside, mark
        os.close(mark)


def _beside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")


def _is_abandoned(folder: Path) -> bool:
    try:
        mark = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(mark)
    return True


def _put_aside(folder: Path) -> None:
    """Remove ``folder``, if it is there; a part of it is there at no time."""
    if folder.exists():
        old = _beside(folder)
        folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def _move(new: Path, folder: Path) -> None:
    try:
        new.rename(folder)
    except OSError as error:
        if not os.path.lexists(folder):
            raise
        raise FileExistsError(
            f"{folder} must not exist before it is written, but does by now: move it away."
        ) from error
