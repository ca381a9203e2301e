"""Settings of the Optuna sweeper.

Hydra runs the modules of its plug-ins before they are registered, where dataclasses cannot be made,
and leaves out those with an underscore.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore


@dataclass
class OptunaStudyConfig:
    """Settings of the sweeper.

    Attributes:
        objectives: ``maximize KEY`` or ``minimize KEY``, a dotted key of ``results.json``.
        trials: how many runs there shall be, with those of earlier calls.
        batch: how many are proposed and launched at a time.
        sampler: an Optuna sampler; by default Optuna's own choice, without a seed.
        params: what is searched, as it would stand on the command line.
    """

    _target_: str = "hydra_plugins.multiprune_optuna_study.sweeper.OptunaStudy"
    objectives: list[str] = field(default_factory=lambda: ["maximize score"])
    trials: int = 20
    batch: int = 1
    sampler: Any = None
    params: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="optuna_study", node=OptunaStudyConfig, provider="multiprune"
)
