"""Write an ONNX file tensor by tensor.

``ONNXProgram.save`` first makes the whole file in memory, twice: four times the weights at most.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch.onnx import ONNXProgram

#: From so many bytes of weights on there are two files: protobuf reads no message above 2 GiB.
LARGEST = 3 << 29

_BYTES = 2  # what protobuf calls the type of messages, strings and bytes


def write_program(program: ONNXProgram, file: Path) -> None:
    """Write a program; its weights go into the same file, or into a second one if they are large.

    The file is a ``ModelProto`` in the encoding of protobuf, where a message within a message
    stands behind its number and its length. The lengths are known before any weight is copied.
    """
    from onnx import GraphProto, ModelProto, TensorProto

    initializers = program.model.graph.initializers
    values = {name: one.const_value for name, one in initializers.items()}
    weights = {name: tensor for name, tensor in values.items() if tensor is not None}
    total: int = sum(tensor.nbytes for tensor in weights.values())
    if total >= LARGEST:
        program.save(str(file), external_data=True)
        return
    held = copy.copy(initializers)
    initializers.clear()
    try:
        model = program.model_proto
    finally:
        initializers.update(held)
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    heads = []
    for name, tensor in weights.items():
        shape = tensor.shape.numpy()
        head = TensorProto(name=name, data_type=tensor.dtype.value, dims=shape)
        described = head.SerializeToString() + _prefix(
            TensorProto.RAW_DATA_FIELD_NUMBER, tensor.nbytes
        )
        length = len(described) + tensor.nbytes
        heads.append(_prefix(GraphProto.INITIALIZER_FIELD_NUMBER, length) + described)
    length = len(graph) + sum(map(len, heads)) + total
    with file.open("wb") as stream:
        stream.write(model.SerializeToString())
        stream.write(_prefix(ModelProto.GRAPH_FIELD_NUMBER, length) + graph)
        for head, tensor in zip(heads, weights.values(), strict=True):
            stream.write(head)
            stream.write(tensor.tobytes())


def _prefix(field: int, length: int) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(length)


def _varint(number: int) -> bytes:
    """Return seven bits a byte, lowest first; the highest bit says that more follow."""
    coded = bytearray()
    while number > 127:
        coded.append(number & 127 | 128)
        number >>= 7
    return bytes([*coded, number])
