"""Read the heads that a run saved with its encoder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from multiprune.tasks.outputs.described import output_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from multiprune.tasks.outputs.output import Output


@dataclass(frozen=True)
class ShippedHeads:
    """Heads in a folder of a run or of an exported model.

    Attributes:
        file: holds their weights, as ``<task>.<name>``.
        outputs: of their tasks, by name.
    """

    file: Path
    outputs: Mapping[str, Output]

    @classmethod
    def beside(cls, source: str) -> ShippedHeads | None:
        """Return the heads beside the encoder in ``source``, if there are any.

        Raises:
            ValueError: if what describes them is damaged.
        """
        stated, file = Path(source) / "heads.json", Path(source) / "heads.safetensors"
        if not (stated.is_file() and file.is_file()):
            return None
        try:
            described: dict[str, Any] = json.loads(stated.read_text())
            outputs = {task: output_from(one) for task, one in described.items()}
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{stated} does not describe the heads beside it: {error}") from error
        return cls(file, outputs)

    def weights(self, task: str, names: Sequence[str]) -> dict[str, Tensor] | None:
        """Return the weights of a task's head by name, if the file has all of them.

        Raises:
            ValueError: if the file is damaged.
        """
        return read(self.file, {name: f"{task}.{name}" for name in names})


def read(file: Path, names: Mapping[str, str]) -> dict[str, Tensor] | None:
    """Return tensors of a file in single precision, by other names; None unless it has them all.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        with safe_open(file, "pt") as stored:
            if not set(names.values()) <= set(stored.keys()):
                return None
            return {ours: stored.get_tensor(theirs).float() for ours, theirs in names.items()}
    except SafetensorError as error:
        raise ValueError(f"{file} is not a whole safetensors file: {error}.") from error
