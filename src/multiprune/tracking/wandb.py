"""W&B logger: files in the run's folder, offline without a key, one run when resumed."""

from __future__ import annotations

import os
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from multiprune.redact import redacted
from multiprune.tracking.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from PIL.Image import Image

    from multiprune.tracking.tracker import Description, Table

#: Holds the id of the W&B run, beside W&B's own folder.
RUN_ID = "wandb-run-id.txt"

# What W&B allows.
_LONGEST_NAME = 128
_LONGEST_TAG = 64

# Where runs of this process have put W&B's files: a folder that the user has chosen stays.
_placed: dict[str, str] = {}


@contextmanager
def _arguments_without_secrets() -> Iterator[None]:
    """Hide secrets of the command line, which W&B notes when a run begins."""
    given = sys.argv
    sys.argv = redacted([*given])
    try:
        yield
    finally:
        sys.argv = given


class WandbTracker(WandbLogger, Tracker):
    """A W&B run that keeps all its files below ``folder``, and its id when it is resumed.

    Args:
        folder: of the run.
        project: on W&B.
        offline: by default, whether the user has no key; ``multiprune sync`` sends the run later.
        predictions: examples of each task in a table, those with the largest errors.
        model: whether the exported model becomes an artifact.
        tags: beside those of task, pruner and encoder.
    """

    def __init__(
        self,
        *,
        folder: str,
        project: str,
        offline: bool | None = None,
        predictions: int = 0,
        model: bool = False,
        tags: Sequence[str] = (),
    ) -> None:
        import wandb

        self.folder, self.tags = Path(folder), list(tags)
        self.predictions, self.keeps_model = predictions, model
        _place_files(self.folder / "wandb")
        if offline is None:
            offline = not wandb.login(prompt=False, verify=False)
        super().__init__(
            save_dir=folder,
            project=project,
            name=self.folder.name,
            id=self._known_id() or uuid.uuid4().hex[:8],
            offline=offline,
            # `offline` alone comes too late: asking for the key has set wandb up already.
            mode="offline" if offline else None,
        )

    @override
    @rank_zero_only
    def begin(self, description: Description) -> None:
        tags = [*description.tags.values(), *self.tags]
        self._wandb_init |= {
            "name": description.name[:_LONGEST_NAME],
            "group": description.group and description.group[:_LONGEST_NAME],
            "tags": list(dict.fromkeys(tag[:_LONGEST_TAG] for tag in tags)),
        }
        # Not before: a run that is refused leaves no folder.
        (self.folder / RUN_ID).write_text(f"{self._wandb_init['id']}\n")
        with _arguments_without_secrets():
            self.log_hyperparams(dict(description.config))

    @override
    @rank_zero_only
    def summarize(self, summary: Mapping[str, float], step: int) -> None:
        self.experiment.summary.update(summary)

    @override
    @rank_zero_only
    def draw(self, name: str, image: Image, step: int) -> None:
        self.log_image(name, [image], step)

    @override
    @rank_zero_only
    def tabulate(self, name: str, table: Table, step: int) -> None:
        self.log_table(name, list(table.columns), [list(row) for row in table.rows], step=step)

    @override
    @rank_zero_only
    def keep_model(self, folder: Path) -> None:
        import wandb

        artifact = wandb.Artifact(f"model-{self._wandb_init['id']}", type="model")
        # As it is not going to change, it need not be copied before it is sent.
        artifact.add_dir(str(folder), policy="immutable")
        self.experiment.log_artifact(artifact)

    @override
    @rank_zero_only
    def close(self, *, succeeded: bool) -> None:
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if succeeded else 1)

    def _known_id(self) -> str | None:
        """Return the id of the run that this one resumes, or that an agent of W&B asks for."""
        file = self.folder / RUN_ID
        if file.is_file() and (known := file.read_text().strip()):
            return known
        return os.environ.get("WANDB_RUN_ID") or None


def _place_files(folder: Path) -> None:
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ARTIFACT_DIR"):
        if os.environ.get(variable) in (None, _placed.get(variable)):
            os.environ[variable] = _placed[variable] = str(folder)
