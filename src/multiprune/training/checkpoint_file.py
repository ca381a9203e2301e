"""Atomic checkpoint files of plain values and tensors, read without executing code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.plugins import TorchCheckpointIO
from torch.serialization import get_unsafe_globals_in_checkpoint
from typing_extensions import override

from multiprune.runs.atomic import atomic_file
from multiprune.training.module import ResumeError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TO_CONTINUE = ("state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers")


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place first, and reads no other than a run can continue from.

    Lightning's own writes into the system's temporary folder, and copies from there.
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Path | None = None
    ) -> None:
        """Write ``checkpoint``; what was there is moved to ``storage_options``, if that is given.

        Raises:
            OSError: if it cannot be written; what was there is then as it was.
            ResumeError: if it holds more than plain values and tensors; likewise.
        """
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(Path(path), moved_to=storage_options) as beside:
            _save(checkpoint, beside)
            # Now: who resumes the run could only be told that there is nothing to resume.
            if code := get_unsafe_globals_in_checkpoint(beside):
                raise ResumeError(
                    f"{path} must hold plain values and tensors alone, so that reading it runs no "
                    f"code, but what is to be saved holds {', '.join(sorted(code))}: have your "
                    "callback, optimizer or pruner keep numbers, strings, lists and tensors."
                )

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path), needs=_TO_CONTINUE)


def read_checkpoint(file: Path, *, needs: Sequence[str] = ("state_dict",)) -> dict[str, Any]:
    """Return what a checkpoint holds, on the CPU; no code that it may hold is run.

    Raises:
        ResumeError: if it is damaged, holds more than plain values and tensors, or lacks what it
            ``needs``.
    """
    if (problem := damage(file)) is None:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
            missing = [key for key in needs if key not in content]
        except Exception as error:
            # What somebody else wrote may raise anything.
            problem = _what_cannot_be_read(file, error)
        else:
            problem = f"has no {', '.join(missing)}" if missing else None
    if problem is not None:
        raise ResumeError(
            f"A checkpoint must be whole and hold plain values and tensors alone, but {file} "
            f"{problem}: choose another hydra.run.dir to begin anew."
        )
    return dict(content)


def damage(file: Path) -> str | None:
    """Return what is wrong with the file of a checkpoint; None if it is whole.

    All of it is held against the checksums that zip files have (torch does not), and nothing in it
    is unpickled.
    """
    if not file.exists():
        return "does not exist"
    try:
        with zipfile.ZipFile(file) as parts:
            if (part := parts.testzip()) is not None:
                return f"is damaged in {part}"
            names = parts.namelist()
    # What is no zip file, or no longer, may raise anything.
    except Exception as error:
        return _what_was_raised(error)
    return None if any(name.endswith("/data.pkl") for name in names) else "has no data.pkl"


def _what_cannot_be_read(file: Path, error: Exception) -> str:
    try:
        code = get_unsafe_globals_in_checkpoint(file)
    except Exception:
        code = []
    if not code:
        return _what_was_raised(error)
    return f"holds {', '.join(sorted(code))}, which would be run"


def _what_was_raised(error: Exception) -> str:
    return f"cannot be read ({type(error).__name__}: {next(iter(str(error).splitlines()), '')})"


def _save(checkpoint: dict[str, Any], file: Path) -> None:
    try:
        # Given a path, torch says nothing of what is wrong with the disk.
        with file.open("wb") as opened:
            torch.save(checkpoint, opened)
    except RuntimeError as error:
        # Its complaint that the file ends early, while it deals with the reason.
        reason = error.__context__
        raise (reason if isinstance(reason, OSError) else error) from None
