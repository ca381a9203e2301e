"""MLflow logger, with one SQLite file for all runs or a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from multiprune.tracking.tracker import Tracker, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image

    from multiprune.tracking.tracker import Description, Table

#: Holds the id of the MLflow run in the run's folder.
RUN_ID = "mlflow-run-id.txt"


class MlflowTracker(MLFlowLogger, Tracker):
    """An MLflow run, which goes on when the run is resumed.

    Args:
        folder: of the run.
        store: folder of ``mlflow.db`` and of the artifacts of all runs.
        experiment: what MLflow lists runs by.
        uri: of a server that takes the place of ``store``; by default, what the environment
            variable MLFLOW_TRACKING_URI says.
        predictions: examples of each task in a table, those with the largest errors.
        model: whether the exported model becomes an artifact.
    """

    def __init__(
        self,
        *,
        folder: str,
        store: str,
        experiment: str,
        uri: str | None = None,
        predictions: int = 0,
        model: bool = False,
    ) -> None:
        require("mlflow", extra="mlflow")
        self.predictions, self.keeps_model = predictions, model
        self._file = Path(folder) / RUN_ID
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
        known = self._file.read_text().strip() if self._file.is_file() else None
        super().__init__(
            experiment_name=experiment,
            tracking_uri=uri or _database(Path(store).resolve(), experiment),
            run_id=known or None,
        )

    @override
    @rank_zero_only
    def begin(self, description: Description) -> None:
        if self._run_id is not None:
            # Its parameters cannot be changed.
            self.experiment.update_run(self._run_id, status="RUNNING")
            return
        self._run_name = description.name
        self.tags = dict(description.tags)
        if description.group is not None:
            self.tags["group"] = description.group
        if description.commit is not None:
            self.tags["mlflow.source.git.commit"] = description.commit
        self._file.write_text(f"{self.run_id}\n")
        self.log_hyperparams(dict(description.config))

    @override
    @rank_zero_only
    def summarize(self, summary: Mapping[str, float], step: int) -> None:
        self.log_metrics(summary, step)

    @override
    @rank_zero_only
    def draw(self, name: str, image: Image, step: int) -> None:
        self.experiment.log_image(self.run_id, image, f"{name}.png")

    @override
    @rank_zero_only
    def tabulate(self, name: str, table: Table, step: int) -> None:
        columns = {
            column: [row[place] for row in table.rows] for place, column in enumerate(table.columns)
        }
        self.experiment.log_table(self.run_id, columns, f"{name}.json")

    @override
    @rank_zero_only
    def keep_model(self, folder: Path) -> None:
        self.experiment.log_artifacts(self.run_id, str(folder), "model")

    @override
    @rank_zero_only
    def close(self, *, succeeded: bool) -> None:
        self.finalize("success" if succeeded else "failed")


def _database(folder: Path, experiment: str) -> str:
    """Return the address of a database that has the experiment.

    Several runs may begin at once, of which one alone can make the tables.
    """
    from filelock import FileLock
    from mlflow import MlflowClient

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "mlflow.db.lock"):
        client = MlflowClient(uri)
        if client.get_experiment_by_name(experiment) is None:
            client.create_experiment(experiment, (folder / "artifacts").as_uri())
    return uri
