"""Upload offline W&B runs, each once, in the order in which they were started."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def sync(folders: Sequence[Path], *, dry_run: bool = False) -> None:
    """Send every offline W&B run below ``folders`` that was not sent since it was last written.

    The segments of a run that was resumed are one run on W&B: ``wandb sync`` sends them one after
    another, because they have one id. With ``dry_run`` it only says what it would send.

    Raises:
        FileNotFoundError: if there is no offline run in a folder.
        RuntimeError: if there is no key, or ``wandb sync`` fails.
    """
    runs = [run for folder in folders for run in offline_runs(folder)]
    unsent = [run for run in dict.fromkeys(runs) if not is_sent(run)]
    print(f"{len(runs) - len(unsent)} of {len(runs)} offline W&B runs were already uploaded.")
    if not unsent:
        return
    # What a job was told when it ran: here, sending is the point.
    os.environ.pop("WANDB_MODE", None)
    if not dry_run:
        check_key()
    # Runs that were sent before and have grown since have a mark that `wandb sync` would heed.
    options = ["--include-synced", *(["--dry-run"] if dry_run else [])]
    command = [sys.executable, "-m", "wandb", "sync", *options, *map(str, unsent)]
    sys.stdout.flush()
    if status := subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
        raise RuntimeError(f"`wandb sync` failed with exit status {status}.")


def offline_runs(folder: Path) -> list[Path]:
    """Return the files of offline W&B runs below ``folder``, by the time of their start.

    Raises:
        FileNotFoundError: if there is none.
    """
    files = [file.resolve() for file in folder.rglob("offline-run-*/run-*.wandb")]
    if not files:
        raise FileNotFoundError(f"No offline W&B runs (of logger=wandb) found in {folder}.")
    return sorted(files, key=lambda file: file.parent.name)


def is_sent(run: Path) -> bool:
    """Whether ``wandb sync`` has sent this file, and nothing was added to it since."""
    mark = run.with_suffix(".wandb.synced")
    return mark.is_file() and mark.stat().st_mtime >= run.stat().st_mtime


def check_key() -> None:
    """Check that W&B can be asked at all.

    Raises:
        RuntimeError: if it has no key.
    """
    import wandb

    if not wandb.login(prompt=False, verify=False):
        raise RuntimeError("No W&B API key found: run `wandb login`, or set WANDB_API_KEY.")
