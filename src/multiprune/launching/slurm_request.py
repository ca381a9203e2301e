"""Resources that a sweep requests from Slurm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omegaconf import DictConfig


def submitit_options(resources: Mapping[str, Any], *, minutes: int) -> dict[str, Any]:
    """Return what submitit is to ask Slurm for, in its words.

    Args:
        resources: of each job, by keys of ``hydra.launcher``.
        minutes: that a job may run.
    """
    asked = {key: value for key, value in resources.items() if value is not None}
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
        "time": minutes,
        "job_name": "multiprune",
        "stderr_to_stdout": True,
        "wckey": None,
        "additional_parameters": {"requeue": True} | further,
    }


def check_processes(config: DictConfig, resources: Mapping[str, Any]) -> None:
    """Refuse a job whose processes would not be those that Slurm starts."""
    for key, name in (("devices", "tasks_per_node"), ("num_nodes", "nodes")):
        has = OmegaConf.select(config, f"trainer.{key}")
        given = resources[name]
        if isinstance(has, int) and has != given:
            raise ValueError(
                f"`trainer.{key}` must equal `hydra.launcher.{name}`, {given}, but is {has}."
            )
