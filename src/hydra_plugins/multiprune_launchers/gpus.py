"""``hydra/launcher=gpus``: as many jobs at a time as there are GPUs, each with one of its own."""

# No `from __future__ import annotations`: Hydra runs a plug-in before its module is known by name,
# and dataclasses look there for what annotations mean.
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from typing_extensions import override

if TYPE_CHECKING:
    from multiprune.launching.job import Job
    from multiprune.launching.observer import SweepObserver
    from multiprune.launching.processes import Died

log = logging.getLogger(__name__)

OUTPUT = "output.log"


@dataclass
class GpusLauncherConf:
    """What ``hydra.launcher`` holds.

    Attributes:
        workers: how many jobs at a time, which see no GPU; None for one job a GPU.
        preload: modules that are imported once for all jobs.
        fail_fast: end the sweep if its first so many jobs all fail for the same reason.
    """

    _target_: str = "hydra_plugins.multiprune_launchers.gpus.GpusLauncher"
    workers: int | None = None
    preload: list[str] = field(default_factory=lambda: ["multiprune.run"])
    fail_fast: int | None = None


ConfigStore.instance().store(
    group="hydra/launcher", name="gpus", node=GpusLauncherConf, provider="multiprune"
)


class GpusLauncher(Launcher):
    """Runs each job in a process of its own, which prints to ``output.log`` in the job's folder."""

    def __init__(self, workers: int | None, preload: Sequence[str], fail_fast: int | None) -> None:
        self._count, self._preload, self._fail_fast = workers, preload, fail_fast

    @override
    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        # Imported late: who asks for another launcher does not wait.
        from multiprune.cores import openmp, usable_cores
        from multiprune.launching.devices import workers
        from multiprune.launching.failures import FirstFailures
        from multiprune.launching.job import Application
        from multiprune.launching.processes import warm_up

        self._config = config
        try:
            self._application = Application.of(hydra_context, config, task_function)
            self._first = FirstFailures(self._fail_fast, config.hydra.sweep.dir)
            self._workers = workers(self._count, os.environ)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
        # Goes on while the sweeper tries whether the jobs can be composed.
        preload = ["multiprune.launching.job", *self._preload]
        share = usable_cores() // len(self._workers)
        warm_up(preload, environment=openmp(share, os.environ))

    @override
    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from multiprune.launching.failures import conclude
        from multiprune.launching.job import compose, execute, labels
        from multiprune.launching.observer import SweepObserver
        from multiprune.launching.processes import run_each
        from multiprune.launching.progress import SweepProgress

        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        log.info("Launching %d jobs, %d at a time", len(job_overrides), len(self._workers))
        names = labels(job_overrides, initial_job_idx)
        jobs: list[Job] = []

        def composed() -> Iterator[tuple["Job", Path]]:
            for job in compose(self._application, job_overrides, initial_job_idx):
                jobs.append(job)
                job.wait()
                yield job, job.folder / OUTPUT

        try:
            with SweepProgress(names, workers=len(self._workers)) as progress:
                sweep = SweepObserver(progress, jobs, self._first, output=OUTPUT)
                observer = _Observer(sweep, jobs)
                outcomes = run_each(execute, composed(), workers=self._workers, observer=observer)
        except KeyboardInterrupt:
            raise SystemExit("The sweep and its running jobs were interrupted.") from None
        returned = [_returned(*one) for one in zip(jobs, outcomes, strict=True)]
        return conclude(returned, self._config)


class _Observer:
    def __init__(self, sweep: "SweepObserver", jobs: Sequence["Job"]) -> None:
        self._sweep, self._jobs = sweep, jobs
        self.started = sweep.started

    def ended(self, position: int, outcome: "JobReturn | Died") -> None:
        from multiprune.runs.status import StatusFile

        job = self._jobs[position]
        if not isinstance(outcome, JobReturn):
            StatusFile(job.folder).lose(f"The process {outcome}.")
        self._sweep.ended(position, _returned(job, outcome))


def _returned(job: "Job", outcome: "JobReturn | Died") -> JobReturn:
    from multiprune.launching.job import failed

    if isinstance(outcome, JobReturn):
        return outcome
    return failed(job, RuntimeError(f"The process {outcome}."))
