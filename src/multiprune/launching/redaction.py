"""Redact secrets in the files that Hydra writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import OmegaConf
from typing_extensions import override

from multiprune.redact import redacted
from multiprune.runs.atomic import atomic_file
from multiprune.runs.command import HYDRA

if TYPE_CHECKING:
    from omegaconf import DictConfig


class Redaction(Callback):
    """Takes secrets out of the files that Hydra has written when a job begins."""

    @override
    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder, sweep = Path(config.hydra.runtime.output_dir), Path(str(config.hydra.sweep.dir))
        for file in (*sorted((folder / HYDRA).glob("*.yaml")), sweep / "multirun.yaml"):
            if file.is_file():
                _redact(file)


def _redact(file: Path) -> None:
    noted = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    if (safe := redacted(noted)) != noted:
        with atomic_file(file) as beside:
            OmegaConf.save(OmegaConf.create(safe), beside)
