"""Atomic writes of files and folders, also through a crash or a full disk."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from contextlib import contextmanager, suppress
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
    written by several processes at once: each has a path of its own, to which it must write in
    place, and what those that were killed have left is removed. Without ``sync`` a crash of the
    machine may lose the file.

    Raises:
        OSError: if it cannot be written; ``file`` is then as it was.
    """
    try:
        with _marked(file, _new_file) if is_shared else _only_one(file) as beside:
            yield beside
            if sync:
                with beside.open("rb") as written:
                    # Some file systems tell only now that they are full.
                    os.fsync(written.fileno())
            if moved_to is not None and file.exists():
                file.replace(moved_to)
            beside.replace(file)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{file} cannot be written: {error}.") from error


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
    try:
        with _marked(folder, _new_folder) as beside:
            yield beside
            if claim is not None:
                claim(beside)
                _put_aside(folder)
            _move(beside, folder)
    except SafetensorError as error:
        raise OSError(f"{folder} cannot be written: {error}.") from error


def leftovers(parent: Path, name: str | None = None) -> list[Path]:
    """Return what a process has begun to write in ``parent``, as ``name``, and never will end.

    That are folders, and files that are shared. What a living process writes to is none.
    """
    found = []
    for path in _begun(parent, name):
        with _unless_written(path) as is_left:
            if is_left:
                found.append(path)
    return found


def _begun(parent: Path, name: str | None) -> list[Path]:
    try:
        return sorted(
            path
            for path in parent.iterdir()
            if (match := _LEFTOVER.fullmatch(path.name)) and name in (None, match["name"])
        )
    except OSError:
        return []


@contextmanager
def _only_one(file: Path) -> Iterator[Path]:
    """Give a path beside a file that one process writes at a time, always the same."""
    beside = file.with_name(f"{file.name}.writing")
    try:
        beside.touch()
        yield beside
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _marked(path: Path, new: Callable[[Path], int]) -> Iterator[Path]:
    """Give what is ``new`` beside a path, marked as written to for as long as this process is."""
    for left in _begun(path.parent, path.name):
        with _unless_written(left) as is_left:
            if is_left:
                _remove(left)
    beside, mark = _locked(path, new)
    try:
        yield beside
    finally:
        _remove(beside)
        os.close(mark)


def _locked(path: Path, new: Callable[[Path], int]) -> tuple[Path, int]:
    while True:
        beside = _beside(path)
        mark = new(beside)
        try:
            fcntl.flock(mark, fcntl.LOCK_EX)
        except OSError:
            # Of a file system without locks, no leftovers are found either.
            return beside, mark
        # Another process may have taken it for a leftover before it was marked.
        if beside.exists():
            return beside, mark
        os.close(mark)


def _new_file(beside: Path) -> int:
    return os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _new_folder(beside: Path) -> int:
    beside.mkdir()
    return os.open(beside, os.O_RDONLY)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}-{uuid.uuid4().hex}")


@contextmanager
def _unless_written(path: Path) -> Iterator[bool]:
    """Mark what a process has begun to write, unless one still writes it; tell which is so."""
    # Over NFS, files are locked by those who could write to them.
    access = os.O_RDONLY if path.is_dir() else os.O_RDWR
    try:
        mark = os.open(path, access | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        yield _try_lock(mark)
    finally:
        os.close(mark)


def _try_lock(mark: int) -> bool:
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(path: Path) -> None:
    """Remove a file or a folder, as far as that is possible."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


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
            f"{folder} was created by another process in the meantime: move it away."
        ) from error
