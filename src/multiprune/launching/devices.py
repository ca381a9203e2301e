"""Find GPUs, and set the environment by which a job sees only its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from multiprune.arguments import check_number

if TYPE_CHECKING:
    from collections.abc import Mapping

VISIBLE = "CUDA_VISIBLE_DEVICES"

# In a process of its own: a CUDA context here would take memory from the jobs.
_COUNT = "import torch; print(torch.cuda.device_count())"


def workers(count: int | None, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """Return, for each job that runs at a time, what its environment must hold.

    Args:
        count: how many jobs at a time, which see no GPU; None for one job a GPU.
        environment: of this process; ``CUDA_VISIBLE_DEVICES`` in it lists the GPUs to hand out, by
            number or by name. Otherwise all are.

    Raises:
        ValueError: if there is no GPU and no ``count``, or ``count`` is below 1.
    """
    if count is not None:
        check_number("hydra.launcher.workers", count, at_least=1, whole=True)
        return [{VISIBLE: ""}] * count
    if devices := _devices(environment):
        return [{VISIBLE: device} for device in devices]
    raise ValueError(
        "hydra/launcher=gpus found no GPU: set hydra.launcher.workers=N to run jobs on the CPU."
    )


def _devices(environment: Mapping[str, str]) -> list[str]:
    if VISIBLE not in environment:
        return [str(number) for number in range(_count())]
    listed = [one.strip() for one in environment[VISIBLE].split(",")]
    # CUDA ignores an entry that is no device, and all after it.
    end = next((at for at, one in enumerate(listed) if one in ("", "-1")), len(listed))
    return listed[:end]


def _count() -> int:
    command = [sys.executable, "-c", _COUNT]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
