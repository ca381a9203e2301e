"""Shared parts of outputs with a label space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import override

from multiprune.tasks.labels import Labels
from multiprune.tasks.outputs.output import Output

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class LabelledOutput(Output):
    """Answers with some of ``labels``, for each of which the head has an output."""

    labels: Labels

    @property
    def num_outputs(self) -> int:
        """The number of outputs of the head."""
        return len(self.labels)

    @property
    @override
    def described(self) -> Mapping[str, Any]:
        return self.labels.definition

    @classmethod
    @override
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        return cls(Labels.from_definition(description))

    @property
    @override
    def label_space(self) -> Mapping[str, Any]:
        return {"kind": self.kind, "labels": [*self.labels]}

    @property
    @override
    def meaning(self) -> str:
        return ", ".join(self.labels)
