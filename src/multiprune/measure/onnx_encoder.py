"""An exported ONNX folder as a benchmarked model."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from multiprune.export.onnx import FILE, check_packages
from multiprune.export.shipped import load_tokenizer
from multiprune.measure.reference import Blueprint
from multiprune.message import first_line
from multiprune.models.bound import Stored, check_fits
from multiprune.models.encoder import Encoder
from multiprune.models.modeling_multiprune import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np


@dataclass(frozen=True)
class OnnxEncoder(Encoder):
    """A file of ONNX; ``model`` has its shapes and random weights, to be counted."""

    file: Path = field(kw_only=True)

    @classmethod
    def from_folder(cls, folder: Path) -> OnnxEncoder:
        """Describe an exported folder.

        Raises:
            RuntimeError: if a package is missing.
            ValueError: if the folder has no configuration, as those had that were exported before,
                or one of a far larger model.
        """
        from transformers import AutoConfig

        check_packages()
        _graph(folder / FILE)
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"{folder} has no config.json, which says what to compare {FILE} with; export it "
                "again."
            )
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        pooler = getattr(config, KEY, {}).get("pooler", False)
        blueprint = Blueprint(config, pooler, config.dtype)
        check_fits(blueprint.untouched, config, _stored(folder / FILE))
        model = blueprint.build()
        return cls(model, load_tokenizer(folder), file=folder / FILE)

    def zeros(self) -> int:
        """Count the elements of matrices that are exactly zero."""
        return sum(int((one == 0).sum()) for _, one in self._weights() if one.ndim > 1)

    def weight_bytes(self) -> int:
        """Return the bytes of the weights that each forward pass reads: no embeddings."""
        return sum(one.nbytes for is_looked_up, one in self._weights() if not is_looked_up)

    def _weights(self) -> Iterator[tuple[bool, np.ndarray[Any, Any]]]:
        """Yield the weights, and whether they are only looked up; indices are none."""
        import onnx

        graph = _graph(self.file)
        looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
        for one in graph.initializer:
            if one.data_type != onnx.TensorProto.INT64:
                yield one.name in looked_up, onnx.numpy_helper.to_array(one)


def _stored(file: Path) -> Stored:
    """Return how many tensors a file of ONNX holds, and how many elements they have."""
    # Outside of the graph lies what is too large for one file.
    held = _graph(file, with_outside=False).initializer
    return Stored(file, len(held), sum(prod(tensor.dims) for tensor in held))


def _graph(file: Path, *, with_outside: bool = True) -> Any:
    """Return the graph in a file.

    Raises:
        ValueError: if it is none, or its weights are not in its folder.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(file, load_external_data=with_outside).graph
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        reason = first_line(error)
        raise ValueError(f"{file} is not a complete ONNX model: {reason}.") from error
