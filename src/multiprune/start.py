"""The start of a run: what its configuration tells is checked before torch is imported."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig

from multiprune.checks import check
from multiprune.config import plain
from multiprune.outcome import is_first_process, is_job, refused, reported
from multiprune.quick_exit import exit_quickly
from multiprune.report.records.results import check_unfinished, is_finished, read_score
from multiprune.status import StatusFile

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float:
    """Run what ``config`` describes; return the score on validation data.

    Wrong input ends a single run with one sentence (``HYDRA_FULL_ERROR=1`` shows where it came
    from), and leaves no folder behind. A job of a sweep that is finished, with settings that give
    the same results, is not run again.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    if is_job() and is_finished(folder, plain(config)):
        log.info("%s is finished already.", folder)
        return read_score(folder)
    status = StatusFile(folder, writes=is_first_process())
    with reported(status), refused(status):
        check_unfinished(folder, plain(config))
        status.begin()
        check(config)
    exit_quickly()
    # Imported late: it takes seconds.
    from multiprune.run import run as run_checked

    return run_checked(config)
