"""Metadata of safetensors files, with a checksum.

The header's metadata has one key (safetensors writes several in random order). Its value is JSON
with ``version``; ``tensors``, a description that is the format's own; and ``checksum``, the CRC-32
of ``tensors`` as compact JSON with sorted keys.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(frozen=True)
class Header:
    """The metadata of one format: its key and its version."""

    key: str
    version: int

    def write(self, described: Mapping[str, Any]) -> dict[str, str]:
        """Return the metadata that describe tensors so."""
        content = {"version": self.version, "checksum": _crc(described), "tensors": described}
        return {self.key: json.dumps(content, separators=(",", ":"))}

    def read(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Return the description, once version and checksum are found to be right.

        Raises a ValueError, one sentence, where they are not.
        """
        if self.key not in metadata:
            raise ValueError(
                f"Metadata must have the key `{self.key}`, but have {sorted(metadata)}."
            )
        try:
            header = json.loads(metadata[self.key])
        except json.JSONDecodeError as error:
            raise ValueError(f"Metadata `{self.key}` must be JSON, but {error}.") from error
        version = header.get("version") if isinstance(header, dict) else None
        if version != self.version:
            raise ValueError(
                f"Version of `{self.key}` must be {self.version}, but is {version!r}: write the "
                "file anew with this multiprune, from the run that it is of."
            )
        described: dict[str, Any] = header.get("tensors")
        if _crc(described) != header.get("checksum"):
            raise ValueError(f"Metadata `{self.key}` must match their checksum, but were changed.")
        return described


def check_names(found: Collection[str], described: Collection[str]) -> None:
    """Raise a ValueError if the tensors of a file are not those that its metadata describe."""
    for name in sorted(set(described).symmetric_difference(found)):
        wrong = "is missing" if name in described else "is there besides"
        raise ValueError(
            f"Stored tensors must be those that the metadata name, but `{name}` {wrong}."
        )


def _crc(described: object) -> int:
    """Return the CRC-32 of what the metadata say, as compact JSON with sorted keys."""
    return zlib.crc32(json.dumps(described, separators=(",", ":"), sort_keys=True).encode())
