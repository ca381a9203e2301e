"""A local mirror of the hub: a folder of parquet files for each data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def mirrored_folder(root: Path, below: str) -> Path:
    """Return the folder of a data set in the mirror at ``root``.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    folder = root.expanduser() / below
    if not folder.is_dir():
        raise FileNotFoundError(
            f"`data.mirror` must hold a folder {below!r}, but {folder} does not exist."
        )
    return folder
