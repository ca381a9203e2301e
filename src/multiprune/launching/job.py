"""One job of a Hydra sweep: its pickled request and its return value."""

from __future__ import annotations

import importlib
import inspect
import pickle
import traceback
from contextlib import contextmanager
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
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from multiprune.config import plain
from multiprune.outcome import sentence
from multiprune.redact import redacted
from multiprune.runs.command import HYDRA
from multiprune.runs.folder import has_results
from multiprune.runs.record import is_finished, read_score
from multiprune.runs.status import StatusFile, is_concluded, read_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hydra.types import HydraContext, TaskFunction


@dataclass(frozen=True)
class Application:
    """What all jobs of a sweep share; the function that they run is known by name, as ``main``."""

    context: HydraContext
    config: DictConfig
    name: str
    module: str
    function: str

    @classmethod
    def of(cls, context: HydraContext, config: DictConfig, function: TaskFunction) -> Application:
        """Note what another process needs to run the jobs of this one's application.

        Raises:
            ValueError: if ``function`` cannot be imported by its name.
        """
        name = str(JobRuntime.instance().get("name"))
        found = cls(context, config, name, function.__module__, function.__qualname__)
        if found.task_function() is not function:
            raise ValueError(f"A job's function must be one of a module, but {function!r} is not.")
        return found

    def task_function(self) -> TaskFunction | None:
        """Return the function itself, in any process."""
        found = getattr(importlib.import_module(self.module), self.function, None)
        # ``hydra.main`` has wrapped it.
        return inspect.unwrap(found) if callable(found) else None


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        problem: why it must not run, if it must not.
        has_results: of an earlier start, when it was composed.
    """

    application: Application
    config: DictConfig
    folder: Path
    problem: str | None
    has_results: bool

    @property
    def overrides(self) -> list[str]:
        """What makes this job different from what the sweep extends, without secrets."""
        given: list[str] = redacted([str(one) for one in self.config.hydra.overrides.task])
        return given

    def wait(self, *, queued: bool = False) -> None:
        """Say in the job's folder that it will be run, by this process or out of a queue."""
        if self.problem is not None or self.has_results:
            return
        StatusFile(self.folder).wait(queued=queued)
        # Hydra writes it when the job begins; until then it tells which one this is.
        notes = self.folder / HYDRA / "overrides.yaml"
        if not notes.exists():
            notes.parent.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(OmegaConf.create(self.overrides), notes)

    def finished_before(self) -> JobReturn | None:
        """Return what a job has returned that has results of the same configuration."""
        if not has_results(self.folder) or not is_concluded(self.folder):
            return None
        config, known = self.config.copy(), self.config.copy()
        with read_write(known.hydra.runtime):
            known.hydra.runtime.output_dir = str(self.folder.absolute())
        with known_to_hydra(known), open_dict(config):
            del config["hydra"]
            settings = plain(config)
        if not is_finished(self.folder, settings):
            return None
        return _returned(self, JobStatus.COMPLETED, read_score(self.folder))


def compose(
    application: Application, overrides: Sequence[Sequence[str]], first: int
) -> Iterator[Job]:
    """Compose the jobs, one when it is asked for; the first has the number ``first``.

    Raises:
        HydraException: if an override does not fit. Sweepers try that before.
    """
    numbers: dict[Path, int] = {}
    for number, own in enumerate(overrides, first):
        loader = application.context.config_loader
        config = loader.load_sweep_config(application.config, list(own))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        folder = _folder(config)
        problem = None
        if (other := numbers.setdefault(folder, number)) != number:
            problem = f"A job needs a folder of its own, but {folder} is that of #{other}."
        yield Job(application, config, folder, problem, has_results(folder))


def labels(overrides: Sequence[Sequence[str]], first: int) -> list[str]:
    """Return what to call the jobs: their numbers, and what not all of them have in common."""
    given = [redacted(filter_overrides(own)) for own in overrides]
    shared = set.intersection(*map(set, given)) if len(given) > 1 else set()
    return [
        " ".join([f"#{number}", *(one for one in own if one not in shared)])
        for number, own in enumerate(given, first)
    ]


def execute(job: Job) -> JobReturn:
    """Run a job in this process, as Hydra's own launcher would."""
    if job.problem is not None:
        return failed(job, ValueError(job.problem))
    setup_globals()
    JobRuntime.instance().set("name", job.application.name)
    function = job.application.task_function()
    assert function is not None
    returned = run_job(
        hydra_context=job.application.context,
        task_function=function,
        config=job.config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    if returned.status == JobStatus.FAILED:
        # Only the exception goes back, not where it came from.
        traceback.print_exception(returned._return_value)
    _conclude(job, returned)
    return _sendable(returned)


def _conclude(job: Job, returned: JobReturn) -> None:
    """Say what became of a job that has not said so itself, such as one that was not importable."""
    status = read_status(job.folder)
    if status is None or status.state != "waiting":
        return
    if returned.status == JobStatus.FAILED:
        StatusFile(job.folder).overrule("failed", sentence(returned._return_value))
    else:
        StatusFile(job.folder).overrule("finished", "")


def failed(job: Job, error: Exception) -> JobReturn:
    """Return what a job would have, had it raised ``error``."""
    return _returned(job, JobStatus.FAILED, error)


def unknown(job: Job) -> JobReturn:
    """Return what stands for a job that nobody waits for."""
    return _returned(job, JobStatus.COMPLETED, None)


@contextmanager
def known_to_hydra(config: DictConfig) -> Iterator[None]:
    """Let ``config`` be the one that Hydra's interpolations refer to."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def _returned(job: Job, status: JobStatus, value: object) -> JobReturn:
    config = job.config.copy()
    hydra = OmegaConf.masked_copy(config, "hydra")
    with open_dict(config):
        del config["hydra"]
    returned = JobReturn(overrides=job.overrides, cfg=config, hydra_cfg=hydra)
    returned.status, returned.return_value = status, value
    return returned


def _folder(config: DictConfig) -> Path:
    with known_to_hydra(config):
        return Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)


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
