"""Validate JSON files of runs, which may be damaged or untrusted."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import TypeAdapter

T = TypeVar("T")

# Far above what a run writes; beyond, a file is not of a run, or numbers and texts cannot be shown.
_LARGEST_FILE = 2**28
_LARGEST_NUMBER = 2**63
_DEEPEST = 50
# Characters of a value in a message.
_SHOWN = 80


def read_file(file: Path) -> bytes:
    """Return what a regular file of a usual size holds.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is anything else.
        OSError: if it cannot be read.
    """
    # Reading a pipe would wait for ever.
    if file.exists() and not file.is_file():
        raise ValueError(f"{file.name} is not a file")
    if (size := file.stat().st_size) > _LARGEST_FILE:
        raise ValueError(f"{file.name} is {size:,} bytes large")
    return file.read_bytes()


def read_json(file: Path) -> Any:
    """Return the JSON in a file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no JSON, or holds what no run writes.
        OSError: if it cannot be read.
    """
    raw = read_file(file)
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} is not JSON: {error}") from None
    _check_plain(content, file.name)
    return content


def check_schema(kind: Any, content: Any, *, name: str) -> None:
    """Check that ``content`` is as the type ``kind`` describes it, by pydantic in strict mode.

    Raises:
        ValueError: if it is not, one sentence; ``name`` is that of the file.
    """
    with _one_sentence(name):
        _adapter(kind).validate_python(content, strict=True)


def checked(kind: type[T], content: Any, *, name: str) -> T:
    """Return the dataclass ``kind`` with the values that JSON holds, checked in strict mode.

    Raises:
        ValueError: if they are others, one sentence; ``name`` is that of the file.
    """
    with _one_sentence(name):
        # From JSON, since pydantic's strict mode takes no dictionary for a dataclass otherwise.
        adapter = _adapter(kind)  # type: ignore[arg-type]
        made: T = adapter.validate_json(json.dumps(content), strict=True)
    return made


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    # Imported late: it takes a tenth of a second.
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise ValueError(f"{name} has no `{key}`") from None
        must = first["msg"].removeprefix("Value error, ").replace("Input should", "must")
        where = f"`{key}` of {name}" if key else name
        raise ValueError(f"{where} {must}, but is {ascii(first['input'])[:_SHOWN]}") from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _check_plain(content: Any, name: str) -> None:
    level, depth = [content], 0
    while level:
        if depth > _DEEPEST:
            raise ValueError(f"{name} is nested more than {_DEEPEST} levels deep")
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                below += [*node, *node.values()]
            elif isinstance(node, list):
                below += node
            elif isinstance(node, str) and not node.isascii():
                _check_text(node, name)
            elif isinstance(node, int) and abs(node) > _LARGEST_NUMBER:
                raise ValueError(f"{name} holds a number of {len(str(abs(node)))} digits")
        level, depth = below, depth + 1


def _check_text(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds text that is not Unicode: {text!a}") from None
