"""``hydra/launcher=slurm``: the jobs of a sweep as one array of a Slurm cluster."""

# No `from __future__ import annotations`: Hydra runs a plug-in before its module is known by name,
# and dataclasses look there for what annotations mean.
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from typing_extensions import override

if TYPE_CHECKING:
    from multiprune.launching.job import Job
    from multiprune.launching.slurm import Handed, Slurm

log = logging.getLogger(__name__)

# The least that whole numbers of ``hydra.launcher`` may be.
_LEAST = {
    "notice": 0,
    "resubmit": 0,
    "gpus_per_node": 0,
    "nodes": 1,
    "tasks_per_node": 1,
    "cpus_per_task": 1,
    "array_parallelism": 1,
}


@dataclass
class SlurmLauncherConf:
    """What ``hydra.launcher`` holds.

    Attributes:
        partition: Slurm's default one, if None.
        account: whom the time is billed to.
        time: limit of a job's run, in minutes; a job that needs more is queued again.
        notice: how many seconds before that a job is told to save and stop; Slurm may be up to a
            minute early.
        nodes: of each job.
        gpus_per_node: of each job.
        tasks_per_node: processes of each job on a node: ``trainer.devices``.
        cpus_per_task: processors of each process.
        memory: of each job on a node, as Slurm writes it, such as ``16G``.
        constraint: features that nodes must have.
        array_parallelism: how many jobs may run at a time.
        setup: lines of shell before a job, such as ``module load cuda``.
        sbatch: further options, by their long names without dashes.
        detach: hand the jobs over and end, instead of waiting for them.
        poll: seconds between two looks at the jobs.
        resubmit: how often a job, each, is handed over again that Slurm has pushed out for good, by
            a preemption or with its node; only while it is waited for.
        fail_fast: end the sweep if its first so many jobs all fail for the same reason.
    """

    _target_: str = "hydra_plugins.multiprune_launchers.slurm.SlurmLauncher"
    partition: str | None = None
    account: str | None = None
    time: int = 60
    notice: int = 120
    nodes: int = 1
    gpus_per_node: int = 0
    tasks_per_node: int = 1
    cpus_per_task: int | None = None
    memory: str | None = None
    constraint: str | None = None
    array_parallelism: int = 256
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Any] = field(default_factory=dict)
    detach: bool = False
    poll: float = 10.0
    resubmit: int = 5
    fail_fast: int | None = None


_conf = OmegaConf.structured(SlurmLauncherConf)
# Its keys are those of sbatch: Hydra adds one without +.
OmegaConf.set_struct(_conf.sbatch, False)
ConfigStore.instance().store(
    group="hydra/launcher", name="slurm", node=_conf, provider="multiprune"
)


class SlurmLauncher(Launcher):
    """Hands jobs over to Slurm, and believes what they leave in their folders, never Slurm."""

    def __init__(
        self,
        *,
        time: int,
        notice: int,
        detach: bool,
        poll: float,
        resubmit: int,
        fail_fast: int | None,
        **resources: Any,
    ) -> None:
        self._time, self._notice = time, notice
        self._detach, self._poll = detach, poll
        self._resubmit, self._fail_fast = resubmit, fail_fast
        self._resources = resources

    @override
    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        # Imported late: who asks for another launcher does not wait.
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise SystemExit(
                "error: hydra/launcher=slurm needs submitit, which is not installed: pip "
                "install 'multiprune[slurm]'."
            ) from None
        from multiprune.launching.failures import FirstFailures
        from multiprune.launching.job import Application

        self._config = config
        try:
            self._check()
            self._first = FirstFailures(self._fail_fast, config.hydra.sweep.dir)
            self._application = Application.of(hydra_context, config, task_function)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error

    @override
    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from multiprune.launching.failures import conclude
        from multiprune.launching.job import compose, labels, unknown

        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        jobs = list(compose(self._application, job_overrides, initial_job_idx))
        returned = {
            position: outcome
            for position, job in enumerate(jobs)
            if (outcome := _without_slurm(job)) is not None
        }
        try:
            slurm = self._slurm()
            handed = self._hand_over(jobs, slurm, without=returned)
        except (ValueError, OSError) as error:
            raise SystemExit(f"error: {error}") from error
        if self._detach:
            log.info("`multiprune status %s` shows them.", self._config.hydra.sweep.dir)
            returned |= {position: unknown(jobs[position]) for position in handed}
        else:
            names = labels(job_overrides, initial_job_idx)
            returned |= self._wait(handed, jobs, slurm, names, without=returned)
        return conclude([returned[position] for position in range(len(jobs))], self._config)

    def _wait(
        self,
        handed: "Mapping[int, Handed]",
        jobs: "Sequence[Job]",
        slurm: "Slurm",
        names: Sequence[str],
        *,
        without: Mapping[int, JobReturn],
    ) -> dict[int, JobReturn]:
        from multiprune.launching.failures import StoppedEarlyError
        from multiprune.launching.observer import SweepObserver
        from multiprune.launching.progress import SweepProgress
        from multiprune.launching.slurm_waiting import Waiting

        at_a_time = min(self._resources["array_parallelism"], len(jobs))
        with SweepProgress(names, workers=at_a_time) as progress:
            observer = SweepObserver(progress, jobs, self._first)
            waiting = Waiting(
                handed,
                jobs,
                slurm=slurm,
                resubmit=self._resubmit,
                seconds=self._poll,
                observer=observer,
            )
            try:
                for position, outcome in without.items():
                    observer.ended(position, outcome)
                return waiting.returns()
            except StoppedEarlyError:
                waiting.cancel("The sweep was stopped, as its first jobs had failed.")
                raise
            except KeyboardInterrupt:
                raise SystemExit(
                    "The jobs continue in Slurm: start the same command again to wait for "
                    f"them, or cancel them by `scancel {' '.join(waiting.arrays())}`."
                ) from None

    def _slurm(self) -> "Slurm":
        from multiprune.launching.slurm import Slurm
        from multiprune.launching.slurm_job import Limit
        from multiprune.launching.slurm_request import submitit_options

        limit = Limit(seconds=60 * self._time, notice=self._notice)
        asked = submitit_options(self._resources, minutes=self._time)
        return Slurm(Path(str(self._config.hydra.sweep.dir)), limit, asked)

    def _hand_over(
        self, jobs: "Sequence[Job]", slurm: "Slurm", *, without: Mapping[int, JobReturn]
    ) -> "dict[int, Handed]":
        from multiprune.launching.slurm import handed_before
        from multiprune.launching.slurm_request import check_processes

        for job in jobs:
            check_processes(job.config, self._resources)
        # Slurm still has a job for some seconds that has ended.
        known = handed_before(jobs, slurm.sweep).items()
        handed = {position: one for position, one in known if position not in without}
        new = [one for one in range(len(jobs)) if one not in handed and one not in without]
        if new:
            submitted = slurm.submit([jobs[one] for one in new])
            handed |= dict(zip(new, submitted, strict=True))
            arrays = dict.fromkeys(one.id.partition("_")[0] for one in submitted)
            log.info("Handed %d jobs over to Slurm, as %s.", len(new), ", ".join(arrays))
        if without or len(new) < len(handed):
            log.info(
                "%d jobs had ended before, and %d were with Slurm.",
                len(without),
                len(handed) - len(new),
            )
        return handed

    def _check(self) -> None:
        from multiprune.arguments import check_number
        from multiprune.launching.failures import BASIC_SWEEPER
        from multiprune.launching.slurm_job import SECONDS_EARLY

        given = {"notice": self._notice, "resubmit": self._resubmit, **self._resources}
        for name, least in _LEAST.items():
            if (number := given[name]) is not None:
                check_number(f"hydra.launcher.{name}", number, at_least=least, whole=True)
        check_number("hydra.launcher.poll", self._poll, above=0)
        # Else a job could be told to stop before it has begun.
        if self._notice + SECONDS_EARLY >= 60 * self._time:
            raise ValueError(
                "`hydra.launcher.time` must be longer than `hydra.launcher.notice` and the "
                f"{SECONDS_EARLY} s that Slurm may be early, but is {self._time} min with a notice "
                f"of {self._notice} s."
            )
        if self._detach and self._fail_fast is not None:
            raise ValueError(
                "hydra.launcher.fail_fast does not work with hydra.launcher.detach=true: set "
                "one of them to false."
            )
        sweeper = self._config.hydra.sweeper._target_
        if self._detach and sweeper != BASIC_SWEEPER:
            raise ValueError(
                f"`hydra.launcher.detach` does not work with {sweeper.rpartition('.')[2]}, "
                "which waits for scores: set it to false."
            )


def _without_slurm(job: "Job") -> JobReturn | None:
    """Return what is known of a job that need not, or must not, be run."""
    from multiprune.launching.job import failed

    return job.finished_before() if job.problem is None else failed(job, ValueError(job.problem))
