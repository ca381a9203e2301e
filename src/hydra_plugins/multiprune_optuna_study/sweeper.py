"""``hydra/sweeper=optuna_study``: Optuna proposes runs by the results of those before.

Hydra's own Optuna plug-in demands an Optuna of 2021, does not go on where it was stopped, and ends
the sweep when a job fails.
"""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf
from typing_extensions import override

from hydra_plugins.multiprune_optuna_study import _settings  # noqa: F401 - registers itself
from hydra_plugins.multiprune_optuna_study._space import SearchSpace, search_space
from multiprune.arguments import check_number
from multiprune.launching.failures import end_failed_sweep
from multiprune.runs.atomic import atomic_file
from multiprune.runs.record import recorded_values
from multiprune.runs.status import GaveUpError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig
    from optuna import Study
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

_DIRECTIONS = ("maximize", "minimize")


class OptunaStudy(Sweeper):
    """Searches with Optuna; the study lies in the sweep's folder, and goes on when started again.

    A run is a trial, and its folder is called after the trial's number. A run that failed is a
    failed trial, one that gave up a pruned one, and the others go on. Trials whose runs were under
    way when the sweep was stopped are launched again, into their folders. In the end, failed runs
    of this start make it one that has failed.
    """

    def __init__(
        self,
        *,
        objectives: Sequence[str],
        trials: int,
        batch: int,
        sampler: Any = None,
        params: Mapping[str, str] | None = None,
    ) -> None:
        if find_spec("optuna") is None:
            raise SystemExit(
                "error: hydra/sweeper=optuna_study needs Optuna, which is not installed: pip "
                "install 'multiprune[optuna]'."
            )
        words = [one.split(" ") for one in objectives]
        if not words or any(len(one) != 2 or one[0] not in _DIRECTIONS for one in words):
            raise SystemExit(
                "error: Objectives must be `maximize KEY` or `minimize KEY` of results.json, but "
                f"are {list(objectives)}."
            )
        for name, number in (("trials", trials), ("batch", batch)):
            try:
                check_number(f"hydra.sweeper.{name}", number, at_least=1, whole=True)
            except ValueError as error:
                raise SystemExit(f"error: {error}") from error
        self.objectives = {key: direction for direction, key in words}
        self.trials, self.batch = trials, batch
        self.sampler, self.params = sampler, dict(params or {})
        self._launched, self._failures = 0, list[Exception]()

    @override
    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    @override
    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        lines = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        folder = Path(self.config.hydra.sweep.dir)
        try:
            space = search_space(parser.parse_overrides(lines))
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(self.config, folder / "multirun.yaml")
            study = self._study(folder)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
        for batch in interrupted(study):
            self._launch(study, space, batch)
        while (left := self.trials - len(study.trials)) > 0:
            asked = [study.ask(dict(space.distributions)) for _ in range(min(self.batch, left))]
            self._launch(study, space, [study.trials[one.number] for one in asked])
        return self._finish(study, folder)

    def _study(self, folder: Path) -> Study:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.study import StudyDirection

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / "study.journal"))),
            study_name=folder.name,
            directions=[StudyDirection[one.upper()] for one in self.objectives.values()],
            sampler=self.sampler,
            load_if_exists=True,
        )
        known = study.user_attrs.get("objectives", self.objectives)
        if known != self.objectives:
            raise ValueError(
                f"The study in {folder} has the objectives {known}, not {self.objectives}: "
                "keep them, or choose another folder."
            )
        study.set_user_attr("objectives", self.objectives)
        return study

    def _launch(self, study: Study, space: SearchSpace, trials: Sequence[FrozenTrial]) -> None:
        jobs = [space.overrides(trial.params) for trial in trials]
        self.validate_batch_is_legal(jobs)
        assert self.launcher is not None
        returned = self.launcher.launch(jobs, initial_job_idx=trials[0].number)
        self._launched += len(trials)
        for trial, job in zip(trials, returned, strict=True):
            self._tell(study, trial, job)

    def _tell(self, study: Study, trial: FrozenTrial, job: JobReturn) -> None:
        from optuna.trial import TrialState

        try:
            values = self._values(job)
        except GaveUpError as error:
            log.info("Trial %d gave up: %s", trial.number, error)
            study.tell(trial.number, state=TrialState.PRUNED)
            return
        except Exception as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            log.warning("Trial %d failed: %s", trial.number, reason)
            self._failures.append(error)
            study.tell(trial.number, state=TrialState.FAIL)
            return
        study.tell(trial.number, values)

    def _values(self, job: JobReturn) -> list[float]:
        if job.status is not JobStatus.COMPLETED:
            raise job._return_value
        assert job.hydra_cfg is not None
        folder = Path(job.hydra_cfg.hydra.runtime.output_dir)
        return recorded_values(folder, self.objectives)

    def _finish(self, study: Study, folder: Path) -> list[dict[str, Any]]:
        """Write and show the trials that no other beats in every objective."""
        from optuna.trial import TrialState

        if not any(trial.state is TrialState.COMPLETE for trial in study.trials):
            end_failed_sweep(self._failures, jobs=self._launched, sweep=folder)
            raise SystemExit(f"error: No run of the study in {folder} has finished.")
        best = [
            {
                "trial": trial.number,
                **dict(zip(self.objectives, trial.values, strict=True)),
                "params": trial.params,
            }
            for trial in sorted(study.best_trials, key=lambda one: one.values[-1])
        ]
        with atomic_file(folder / "best_trials.json") as beside:
            beside.write_text(json.dumps(best, indent=2) + "\n")
        for one in best:
            log.info("Not beaten: %s", one)
        end_failed_sweep(self._failures, jobs=self._launched, sweep=folder)
        return best


def interrupted(study: Study) -> list[list[FrozenTrial]]:
    """Return the trials that were under way when the study was stopped, in runs of numbers."""
    from optuna.trial import TrialState

    batches: list[list[FrozenTrial]] = []
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        if batches and batches[-1][-1].number == trial.number - 1:
            batches[-1].append(trial)
        else:
            batches.append([trial])
    return batches
