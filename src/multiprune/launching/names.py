"""Job names of a sweep, from the overrides that vary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import read_write
from typing_extensions import override

if TYPE_CHECKING:
    from omegaconf import DictConfig

_EXCLUDE = "hydra.job.config.override_dirname.exclude_keys"


class JobNames(Callback):
    """Leaves what all jobs have in common out of their names.

    What the file of a sweep lists varies, also where a command gives it one value, so that a job
    has the same name in each command.
    """

    @override
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        given = OverridesParser.create().parse_overrides([*config.hydra.overrides.task])
        varying = set((config.hydra.sweeper.get("params") or {}).keys())
        varying = {str(key).lstrip("+~") for key in varying}
        fixed = [
            key
            for one in given
            if not one.is_sweep_override() and (key := one.get_key_element().lstrip("+~"))
            if key not in varying
        ]
        known = [*config.hydra.job.config.override_dirname.exclude_keys]
        # Jobs are composed anew, with these overrides and their own.
        with read_write(config.hydra.overrides):
            names = ",".join(dict.fromkeys([*known, *fixed]))
            config.hydra.overrides.hydra.append(f"{_EXCLUDE}=[{names}]")
