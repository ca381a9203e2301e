"""The folder of a run, and the files that the run may replace."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from multiprune.runs.atomic import atomic_file

if TYPE_CHECKING:
    from collections.abc import Callable

#: The file that says that a run is finished, and what came of it.
RESULTS = "results.json"

#: The folders within that of a run that hold its model, its model of all sizes, and the model as it
#: was before it was pruned, where the run learns from that.
MODEL, SIZES_FOLDER, DENSE = "model", "sizes", "dense"

#: Notes the digests of the folders that a run has written, or was about to.
WRITTEN = ".written.json"

#: Is locked by the process that runs there.
RUN_LOCK = ".run.lock"

_FILES = (
    "metrics.csv",
    "masks.safetensors",
    "predictions.safetensors",
    "checkpoints/best.ckpt",
)

_CHECKPOINTS = ("checkpoints/last.ckpt", "checkpoints/previous.ckpt")


def has_results(folder: Path) -> bool:
    """Whether the run in a folder has left results."""
    return (folder / RESULTS).is_file()


class RunFolder:
    """Tells what this run has written from what somebody else keeps in the same folder.

    A run notes that it begins where nothing stands in its way; files at the places that it writes
    to are its own from then on. Folders are its own if they are, byte for byte, what it wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self) -> None:
        """Note that a run begins here, unless it has begun before.

        Raises:
            ValueError: if it would replace what it did not write.
        """
        written = self._written()
        # A checkpoint is held against the configuration before anything is written.
        has_begun = written is not None or any((self.path / name).exists() for name in _CHECKPOINTS)
        for name in () if has_begun else _FILES:
            if os.path.lexists(self.path / name):
                raise self._foreign(name)
        for name in (MODEL, SIZES_FOLDER, DENSE):
            self._check(name, written or {})
        if written is None:
            self._note({})

    def claim(self, name: str) -> Callable[[Path], None]:
        """Return what notes a folder that is to be ``name``, if that may be replaced."""

        def note(new: Path) -> None:
            written = self._written() or {}
            self._check(name, written)
            # What is there stays its own until the other has taken its place.
            self._note(written | {name: [*written.get(name, []), digest(new)]})

        return note

    def check_outside(self, encoder: str) -> None:
        """Refuse an encoder that is read from the run's own folder.

        Raises:
            ValueError: if ``encoder``, a path or a name on the hub, is in there.
        """
        found = Path(encoder).expanduser()
        if found.exists() and found.resolve().is_relative_to(self.path.resolve()):
            raise ValueError(
                f"`encoder.path` must be outside of the run's own folder, but {encoder} is within "
                f"{self.path}: choose another hydra.run.dir (or hydra.sweep.dir)."
            )

    def _check(self, name: str, written: dict[str, list[str]]) -> None:
        place = self.path / name
        if not os.path.lexists(place):
            return
        is_folder = place.is_dir() and not place.is_symlink()
        if is_folder and (not any(place.iterdir()) or digest(place) in written.get(name, [])):
            return
        raise self._foreign(name)

    def _foreign(self, name: str) -> ValueError:
        return ValueError(
            f"A run replaces nothing that it did not write, but {self.path / name} is not of this "
            "run: move it away, or choose another hydra.run.dir (or hydra.sweep.dir)."
        )

    def _written(self) -> dict[str, list[str]] | None:
        """Return the digests by folder; None if no run has begun."""
        try:
            content = json.loads((self.path / WRITTEN).read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            return {}
        content = content if isinstance(content, dict) else {}
        return {name: one for name, one in content.items() if isinstance(one, list)}

    def _note(self, written: dict[str, list[str]]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path / WRITTEN) as beside:
            beside.write_text(json.dumps(written, indent=2) + "\n")


def digest(folder: Path) -> str:
    """Return the SHA-256 of all names and contents in a folder."""
    of_all = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file():
            with path.open("rb") as content:
                name += hashlib.file_digest(content, "sha256").hexdigest()
        of_all.update(name.encode(errors="surrogateescape") + b"\0")
    return of_all.hexdigest()
