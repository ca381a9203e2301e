"""Files and folders that are there as a whole or not at all, also after a crash or a full disk."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from safetensors import SafetensorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LEFTOVER = re.compile(r"\.(?P<name>.+)-[0-9a-f]{32}")


@contextmanager
def atomic_file(
    file: Path, *, moved_to: Path | None = None, is_shared: bool = False, sync: bool = True
) -> Iterator[Path]:
    """Give a path beside ``file`` to write to, which takes its place once it is on the disk.

    What was there is moved to ``moved_to`` first, or else replaced. One that ``is_shared`` may be
    written by several processes at once. Without ``sync`` a crash of the machine may lose it.

    Raises:
        OSError: if it cannot be written; ``file`` is then as it was.
    """
    beside = _beside(file) if is_shared else file.with_name(f"{file.name}.writing")
    try:
        beside.touch()
        mode = beside.stat().st_mode & 0o666
        yield beside
        # safetensors writes for the owner alone.
        beside.chmod(mode)
        if sync:
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


@contextmanager
def atomic_folder(folder: Path, *, claim: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Give a folder to write into, which takes its place at ``folder`` if nothing fails.

    What processes that were killed have left of writing ``folder`` is removed. ``claim`` is called
    with what was written, on the disk, before that takes the place of what is there; it raises if
    that must stay. Without it, nothing may be there.

    Raises:
        OSError: if something cannot be written, or there is something at ``folder`` already.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in leftovers(folder.parent, folder.name):
        shutil.rmtree(leftover, ignore_errors=True)
    beside, mark = _new_folder(folder)
    try:
        yield beside
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
