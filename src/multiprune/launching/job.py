"""One job of a Hydra sweep: what is sent to its process, and what comes back."""

from __future__ import annotations

import importlib
import inspect
import pickle
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import (
    JobReturn,
    JobRuntime,
    JobStatus,
    filter_overrides,
    run_job,
    setup_globals,
)
from omegaconf import DictConfig, OmegaConf, open_dict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra.types import HydraContext, TaskFunction


@dataclass(frozen=True)
class Job:
    """A job; the function that it runs is known by its module and name, as ``main`` is."""

    number: int
    config: DictConfig
    context: HydraContext
    module: str
    function: str
    application: str
    folder: Path

    def __str__(self) -> str:
        return " ".join([f"#{self.number}", *filter_overrides(self.overrides)])

    @property
    def overrides(self) -> list[str]:
        """What makes this job different from what the sweep extends."""
        return [str(one) for one in self.config.hydra.overrides.task]


def compose(
    context: HydraContext,
    config: DictConfig,
    function: TaskFunction,
    overrides: Sequence[Sequence[str]],
    first: int,
) -> list[Job]:
    """Compose the configurations of all jobs, so that a wrong one shows before any is started.

    Raises:
        HydraException: if an override does not fit.
        ValueError: if two jobs have the same folder, or ``function`` cannot be imported by name.
    """
    application = str(JobRuntime.instance().get("name"))
    jobs = []
    for number, own in enumerate(overrides, first):
        composed = context.config_loader.load_sweep_config(config, list(own))
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = number
        module, name = function.__module__, function.__qualname__
        folder = _folder(composed)
        jobs.append(Job(number, composed, context, module, name, application, folder))
    if jobs and _function(jobs[0]) is not function:
        raise ValueError(f"A job's function must be one of a module, but {function!r} is not.")
    for folder, count in Counter(job.folder for job in jobs).items():
        if count > 1:
            raise ValueError(f"Each job needs a folder of its own, but {count} share {folder}.")
    return jobs


def execute(job: Job) -> JobReturn:
    """Run a job in this process, as Hydra's own launcher would."""
    setup_globals()
    JobRuntime.instance().set("name", job.application)
    function = _function(job)
    assert function is not None
    returned = run_job(
        hydra_context=job.context,
        task_function=function,
        config=job.config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    if returned.status == JobStatus.FAILED:
        # Only the exception goes back, not where it came from.
        traceback.print_exception(returned._return_value)
    return _sendable(returned)


def failed(job: Job, error: Exception) -> JobReturn:
    """Return what a job would have, had it raised ``error``."""
    config = job.config.copy()
    hydra = OmegaConf.masked_copy(config, "hydra")
    with open_dict(config):
        del config["hydra"]
    returned = JobReturn(overrides=job.overrides, cfg=config, hydra_cfg=hydra)
    returned.status, returned.return_value = JobStatus.FAILED, error
    return returned


def _folder(config: DictConfig) -> Path:
    before = HydraConfig.instance().cfg
    # For what is interpolated.
    HydraConfig.instance().set_config(config)
    try:
        return Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
    finally:
        HydraConfig.instance().cfg = before


def _function(job: Job) -> TaskFunction | None:
    # ``hydra.main`` has wrapped it.
    found = getattr(importlib.import_module(job.module), job.function, None)
    return inspect.unwrap(found) if callable(found) else None


def _sendable(returned: JobReturn) -> JobReturn:
    try:
        pickle.loads(pickle.dumps(returned))
    except Exception as error:
        value = returned._return_value
        name = type(value).__name__
        if returned.status == JobStatus.FAILED:
            returned.return_value = RuntimeError(f"{name}: {value}")
        else:
            returned.status = JobStatus.FAILED
            returned.return_value = TypeError(
                f"A job must return what can be pickled, but returned a {name}: {error}"
            )
    return returned
