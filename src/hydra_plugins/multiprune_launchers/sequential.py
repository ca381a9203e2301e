"""``hydra/launcher=sequential``: one job after another, in this process."""

# No `from __future__ import annotations`: Hydra runs a plug-in before its module is known by name,
# and dataclasses look there for what annotations mean.
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from typing_extensions import override

OUTPUT = "output.log"


@dataclass
class SequentialLauncherConf:
    """What ``hydra.launcher`` holds.

    Attributes:
        fail_fast: end the sweep if its first so many jobs all fail for the same reason.
    """

    _target_: str = "hydra_plugins.multiprune_launchers.sequential.SequentialLauncher"
    fail_fast: int | None = None


ConfigStore.instance().store(
    group="hydra/launcher", name="sequential", node=SequentialLauncherConf, provider="multiprune"
)


class SequentialLauncher(BasicLauncher):
    """Hydra's own launcher, which says when a job fails, and ends a sweep with failures in a line.

    Where a failure came from is written to ``output.log`` in the job's folder.
    """

    def __init__(self, fail_fast: int | None) -> None:
        super().__init__()
        self._fail_fast = fail_fast

    @override
    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        # Imported late: who asks for another launcher does not wait.
        from multiprune.launching.failures import FirstFailures

        try:
            self._first = FirstFailures(self._fail_fast, config.hydra.sweep.dir)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error

        def watched(job: DictConfig) -> Any:
            return self._run(task_function, job)

        super().setup(hydra_context=hydra_context, task_function=watched, config=config)

    @override
    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from multiprune.launching.failures import conclude

        assert self.config is not None
        return conclude(super().launch(job_overrides, initial_job_idx), self.config)

    def _run(self, task_function: TaskFunction, job: DictConfig) -> Any:
        from multiprune.outcome import is_first_process, sentence
        from multiprune.runs.folder import has_results
        from multiprune.runs.status import GaveUpError

        number, folder = HydraConfig.get().job.num, Path(HydraConfig.get().runtime.output_dir)
        has_finished = has_results(folder)
        try:
            returned = task_function(job)
        except GaveUpError:
            self._first.ended(None)
            raise
        except Exception as error:
            if is_first_process():
                with (folder / OUTPUT).open("a") as file:
                    traceback.print_exception(error, file=file)
                print(f"failed: #{number}: {sentence(error)} ({folder / OUTPUT})", file=sys.stderr)
            self._first.ended(error)
            raise
        if not has_finished:
            self._first.ended(None)
        return returned
