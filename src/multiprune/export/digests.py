"""SHA-256 digests of weight files, because safetensors does not detect flipped bits."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DIGESTS = "sha256.json"
#: Files of weights; the others are text, which a reader may want to change.
SUFFIXES = (".safetensors", ".onnx", ".data")


def write_digests(folder: Path) -> None:
    """Write ``sha256.json``, which maps the names of the folder's files of weights to digests."""
    digests = {
        file.name: sha256(file) for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES
    }
    (folder / DIGESTS).write_text(json.dumps(digests, indent=2) + "\n")


def check_digest(file: Path) -> None:
    """Raise a ValueError if ``file`` is not what was written; unknown files are not checked."""
    listed = file.with_name(DIGESTS)
    if not listed.is_file():
        return
    try:
        digests = json.loads(listed.read_text())
        if not isinstance(digests, dict):
            raise ValueError("it is not an object")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{listed} is not a JSON object of digests by file: {error}.") from error
    expected = digests.get(file.name)
    if expected is not None and sha256(file) != expected:
        raise ValueError(f"{file} is damaged: its SHA-256 is not the one in {DIGESTS}.")


def sha256(file: Path) -> str:
    """Return the digest of a file, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
