"""Start a run: check its configuration before torch is imported."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig

from multiprune.checks import check
from multiprune.config import Train, plain
from multiprune.launching.lock import one_run_in
from multiprune.outcome import is_first_process, is_job, refused, reported
from multiprune.quick_exit import exit_quickly
from multiprune.runs.folder import RunFolder
from multiprune.runs.record import check_unfinished, is_finished, read_score
from multiprune.runs.status import StatusFile, is_concluded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omegaconf import DictConfig

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float:
    """Run what ``config`` describes; return the score on validation data.

    Wrong input ends a single run with one sentence (``HYDRA_FULL_ERROR=1`` shows where it came
    from), and leaves no folder behind. A job of a sweep that is finished, with settings that give
    the same results, is not run again. A run whose results are complete, but which did not come to
    tell its trackers, does just that.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    if is_job() and is_concluded(folder) and is_finished(folder, plain(config)):
        log.info("%s is finished already.", folder)
        return read_score(folder)
    with one_run_in(folder):
        return _run(config, folder)


def _run(composed: DictConfig, folder: Path) -> float:
    status = StatusFile(folder, writes=is_first_process())
    with reported(status), refused(status):
        config = plain(composed)
        check_is_of_run(config)
        is_left_to_conclude = not is_concluded(folder) and is_finished(folder, config)
        if is_left_to_conclude and not is_first_process():
            return read_score(folder)
        if not is_left_to_conclude:
            check_unfinished(folder, config)
            begin(config, RunFolder(folder))
        status.begin()
        check(config)
    exit_quickly()
    # Imported late: it takes seconds.
    from multiprune.run import conclude_again
    from multiprune.run import run as run_checked

    return (conclude_again if is_left_to_conclude else run_checked)(config)


def check_is_of_run(config: Mapping[str, Any]) -> None:
    """Refuse a configuration that does not extend the one of a run."""
    keys = {"task", *config}
    if missing := [setting.name for setting in fields(Train) if setting.name not in keys]:
        raise ValueError(
            f"The configuration has no `{missing[0]}`: extend that of a run, by `defaults: "
            "[train, _self_]`."
        )


def begin(config: Mapping[str, Any], folder: RunFolder) -> None:
    """Refuse a run that would replace what it did not write, or what it reads."""
    if not is_first_process():
        return
    encoder = config["encoder"]
    if isinstance(encoder, dict) and (path := encoder.get("path")):
        folder.check_outside(str(path))
    folder.begin()
