"""The tasks and the data of a finished run, built again from what its results say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from hydra.utils import instantiate

from multiprune.data.datamodule import EACH
from multiprune.models.text_to_text import tasks_for
from multiprune.outcome import sentence

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from multiprune.data.batches import EncodedTask
    from multiprune.models.encoder import Encoder


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes:
        run: folder of a finished run.
        config: that of the run.
    """

    run: Path
    config: Mapping[str, Any]

    def encoded(
        self,
        name: str,
        encoder: Encoder,
        mirror: str | None = None,
        *,
        others: Mapping[str, Any] | None = None,
    ) -> EncodedTask:
        """Return a task with its rows, as the run has read and encoded them.

        ``mirror`` replaces the run's; ``others`` are configurations of tasks that it did not have.

        Raises:
            ValueError: if a class of the configuration cannot be found, or data do not fit.
            OSError: if data cannot be read.
        """
        settings = dict(self.config["data"])
        cap = settings.get("cap") or {}
        settings["cap"] = {key: most for key, most in cap.items() if key in (name, EACH)}
        settings["max_length"] = min(settings["max_length"], encoder.max_length)
        if mirror is not None:
            settings["mirror"] = mirror
        try:
            task = instantiate((self.config["task"] | dict(others or {}))[name], _convert_="all")
            task = tasks_for(encoder, {name: task})[name]
            data = instantiate(settings, _partial_=True, _convert_="all")(
                tasks={name: task}, tokenizer=encoder.tokenizer, seed=self.config["seed"]
            )
        except HydraException as error:
            raise ValueError(f"{self.run}: {sentence(error)}") from error
        data.setup()
        encoded: EncodedTask = data.encoded[name]
        return encoded


def read_origin(run: Path) -> Origin:
    """Read where the model of a run comes from.

    Raises:
        FileNotFoundError: if the run is not finished, or is an exported folder.
    """
    file = run / "results.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"A finished run must say in results.json what its tasks read, but {run} has none: "
            "name the run that a model was exported from with `--data-of`."
        )
    return Origin(run, json.loads(file.read_text())["config"])
