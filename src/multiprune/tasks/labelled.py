"""Tasks with a label space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from multiprune.tasks.labels import checked_labels, known, marks_unlabelled
from multiprune.tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(kw_only=True)
class LabelledTask(Task):
    """Answers with some of ``labels``.

    Attributes:
        labels: their names, by id, or the integers that the data have for them; None to read them
            from the training data.
    """

    labels: Sequence[Any]

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None:
            self.labels = checked_labels(self.labels)

    @classmethod
    @override
    def described_settings(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        return {"labels": description.get("values") or description["labels"]}

    @property
    def names_labels(self) -> bool:
        """Whether the label column names labels, so that all of them can be read from it."""
        return True

    @property
    @override
    def cache_key(self) -> Mapping[str, Any]:
        return {**super().cache_key, **known(self.labels).definition}

    @property
    @override
    def marks_unlabelled(self) -> bool:
        return marks_unlabelled(self.labels)
