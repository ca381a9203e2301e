"""``hydra/launcher=slurm``: the jobs of a sweep as one array of a Slurm cluster."""

# No `from __future__ import annotations`: Hydra runs a plug-in before its module is known by name,
# and dataclasses look there for what annotations mean.
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from typing_extensions import override

if TYPE_CHECKING:
    from multiprune.launching.job import Job
    from multiprune.launching.progress import SweepProgress

log = logging.getLogger(__name__)

_BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


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


ConfigStore.instance().store(
    group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="multiprune"
)


class SlurmLauncher(Launcher):
    """Hands jobs over to Slurm, and believes what they leave in their folders, never Slurm."""

    def __init__(
        self, *, time: int, notice: int, detach: bool, poll: float, **resources: Any
    ) -> None:
        self._time, self._notice = time, notice
        self._detach, self._poll = detach, poll
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
                "error: hydra/launcher=slurm needs submitit, but it is not installed: "
                "pip install 'multiprune[slurm]'."
            ) from None
        from multiprune.launching.job import Application

        self._config = config
        try:
            self._check()
            self._application = Application.of(hydra_context, config, task_function)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error

    @override
    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from multiprune.launching.job import compose, labels, unknown
        from multiprune.launching.progress import SweepProgress
        from multiprune.launching.slurm import Waiting

        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        jobs = list(compose(self._application, job_overrides, initial_job_idx))
        returned = {
            position: outcome
            for position, job in enumerate(jobs)
            if (outcome := _without_slurm(job)) is not None
        }
        try:
            handed = self._hand_over(jobs, without=returned)
        except (ValueError, OSError) as error:
            raise SystemExit(f"error: {error}") from error
        if self._detach:
            log.info("`multiprune status %s` shows them.", self._config.hydra.sweep.dir)
            return [returned.get(position, unknown(job)) for position, job in enumerate(jobs)]
        names = labels(job_overrides, initial_job_idx)
        at_a_time = self._resources["array_parallelism"]
        try:
            with SweepProgress(names, workers=min(at_a_time, len(jobs))) as progress:
                observer = _Observer(progress, jobs)
                for position, outcome in returned.items():
                    observer.ended(position, outcome)
                waiting = Waiting(handed, jobs, seconds=self._poll, observer=observer)
                returned |= waiting.returns()
        except KeyboardInterrupt:
            ids = " ".join(sorted({one.id.partition("_")[0] for one in handed.values()}))
            raise SystemExit(
                "The jobs go on without this process: start the same command again to wait for "
                f"them, or end them by `scancel {ids}`."
            ) from None
        return [returned[position] for position in range(len(jobs))]

    def _hand_over(self, jobs: "Sequence[Job]", *, without: Mapping[int, JobReturn]) -> Any:
        from multiprune.launching.slurm import handed_before, submit
        from multiprune.launching.slurm_job import Limit

        for job in jobs:
            self._check_processes(job)
        sweep = Path(str(self._config.hydra.sweep.dir))
        handed = handed_before(jobs, sweep)
        new = [one for one in range(len(jobs)) if one not in handed and one not in without]
        if new:
            limit = Limit(seconds=60 * self._time, notice=self._notice)
            asked = self._asked()
            submitted = submit([jobs[one] for one in new], sweep, limit=limit, asked=asked)
            handed |= dict(zip(new, submitted, strict=True))
            log.info("Handed %d jobs over to Slurm, as %s.", len(new), submitted[0].id)
        if without or len(new) < len(handed):
            log.info(
                "%d jobs had ended before, and %d were with Slurm.",
                len(without),
                len(handed) - len(new),
            )
        return handed

    def _asked(self) -> dict[str, Any]:
        """Return what submitit is to ask Slurm for, in its words."""
        asked = {key: value for key, value in self._resources.items() if value is not None}
        further = {key.replace("_", "-"): value for key, value in asked.pop("sbatch").items()}
        renamed = {"tasks_per_node": "ntasks_per_node", "memory": "mem"}
        asked = {renamed.get(key, key): value for key, value in asked.items()}
        asked["setup"] = list(asked["setup"])
        if asked["gpus_per_node"] == 0:
            del asked["gpus_per_node"]
        srun = ["--kill-on-bad-exit=1"]
        if "cpus_per_task" in asked:
            # Since Slurm 22.05, `srun` does not ask for what `sbatch` was given.
            srun.append(f"--cpus-per-task={asked['cpus_per_task']}")
        return {
            **asked,
            "srun_args": srun,
            "time": self._time,
            "job_name": "multiprune",
            "stderr_to_stdout": True,
            "wckey": None,
            "additional_parameters": {"requeue": True} | further,
        }

    def _check(self) -> None:
        from multiprune.launching.slurm_job import SECONDS_EARLY

        # Else a job could be told to stop before it has begun.
        if self._notice + SECONDS_EARLY >= 60 * self._time:
            raise ValueError(
                "`hydra.launcher.time` must be longer than `hydra.launcher.notice` and the "
                f"{SECONDS_EARLY} s that Slurm may be early, but is {self._time} min with a notice "
                f"of {self._notice} s."
            )
        sweeper = self._config.hydra.sweeper._target_
        if self._detach and sweeper != _BASIC_SWEEPER:
            raise ValueError(
                "`hydra.launcher.detach` needs a sweep that does not wait for scores, but "
                f"{sweeper.rpartition('.')[2]} does."
            )

    def _check_processes(self, job: "Job") -> None:
        """Refuse a job whose processes would not be those that Slurm starts."""
        for key, name in (("devices", "tasks_per_node"), ("num_nodes", "nodes")):
            has = OmegaConf.select(job.config, f"trainer.{key}")
            given = self._resources[name]
            if isinstance(has, int) and has != given:
                raise ValueError(
                    f"The processes of a job are those that Slurm starts: `trainer.{key}` must be "
                    f"`hydra.launcher.{name}`, {given}, but is {has}."
                )


class _Observer:
    def __init__(self, progress: "SweepProgress", jobs: "Sequence[Job]") -> None:
        self._progress, self._jobs = progress, jobs

    def started(self, position: int) -> None:
        self._progress.started(position)

    def ended(self, position: int, outcome: JobReturn) -> None:
        from multiprune.outcome import sentence

        problem = None
        if outcome.status == JobStatus.FAILED:
            problem = f"{sentence(outcome._return_value)} ({self._jobs[position].folder})"
        self._progress.ended(position, problem)


def _without_slurm(job: "Job") -> JobReturn | None:
    """Return what is known of a job that need not, or must not, be run."""
    from multiprune.launching.job import failed

    return job.finished_before() if job.problem is None else failed(job, ValueError(job.problem))
