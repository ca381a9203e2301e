"""A checkpoint that runs a command when it is unpickled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import override

if TYPE_CHECKING:
    from pathlib import Path


class Payload:
    """What makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


def put_payload_in(checkpoint: Path, mark: Path) -> None:
    """Have a checkpoint make the file ``mark``."""
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {"world_size": Payload(mark)}, checkpoint)
