"""Loggers that need more than a line of configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytorch_lightning.loggers import WandbLogger


def wandb_logger(*, folder: str, project: str, offline: bool | None = None) -> WandbLogger:
    """Return a W&B logger that keeps all its files below ``folder``.

    ``offline=None`` means: online if the user has a key, otherwise offline (``wandb sync`` sends
    the run later).
    """
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        os.environ.setdefault(variable, str(Path(folder) / "wandb"))
    if offline is None:
        offline = not wandb.login(prompt=False, verify=False)
    return WandbLogger(
        save_dir=folder,
        project=project,
        name=Path(folder).name,
        offline=offline,
        # `offline` alone comes too late: asking for the key has set wandb up already.
        mode="offline" if offline else None,
    )
