"""The model, tasks and data that specialized models are extracted from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiprune.arguments import check_several
from multiprune.export.checkpoint import model_folder
from multiprune.export.loading import load
from multiprune.specialize.origin import read_origin
from multiprune.specialize.specialist import check_can_be_cut

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from multiprune.export.shipped import ShippedModel
    from multiprune.specialize.origin import Origin


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which tasks, and of which run; ``conf/run.yaml`` says what each setting means.

    Attributes:
        run: a finished run, or a folder exported from one.
        languages: make a model for each of these and each task, all that there are training rows
            in if there are none; None for one model a task, of all its languages.
    """

    run: Path
    tasks: Sequence[str] = ()
    languages: Sequence[str] | None = None
    data_of: Path | None = None
    mirror: str | None = None
    allow_targets: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_several("tasks", self.tasks)
        check_several("languages", () if self.languages is None else self.languages)
        check_several("allow_targets", self.allow_targets)

    def opened(self) -> tuple[ShippedModel, Origin, list[str]]:
        """Return the model, where it comes from, and the names of the tasks.

        Raises:
            ValueError: if the model has no such task, or cannot be cut.
            FileNotFoundError: if there is no finished run.
        """
        model_folder(self.run)  # refuses several models in one folder
        model = load(self.run)
        check_can_be_cut(model)
        origin = read_origin(self.data_of or self.run, allow_targets=self.allow_targets)
        tasks = list(self.tasks) or list(model.meaning)
        if unknown := [name for name in tasks if name not in model.meaning]:
            raise ValueError(
                f"`tasks` must name tasks of the model, which are {', '.join(model.meaning)}, but "
                f"names {', '.join(unknown)}."
            )
        return model, origin, tasks
