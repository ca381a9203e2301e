"""Export encoder and heads to one ONNX file, and compare its logits with PyTorch's."""

from __future__ import annotations

import logging
import re
import warnings
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.onnx.errors import OnnxExporterError
from typing_extensions import override

from multiprune.export.onnx_file import write_program
from multiprune.export.text_to_text import check_is_encoder
from multiprune.message import first_line
from multiprune.models.heads import embeddings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch.onnx import ONNXProgram

    from multiprune.export.shipped import ShippedModel

FILE = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")

#: The largest difference between logits of ONNX Runtime and of PyTorch that is rounding: of 1, or
#: of the largest logit where that is more.
TOLERANCE = 1e-4

# What torch.onnx says about every model, by the start of the message.
_WARNINGS = ("# The axis name: ", "`isinstance(treespec, LeafSpec)` is deprecated")
_LOGGED = {
    "torch.onnx._internal.exporter._registration": "torchvision is not installed",
    "onnxscript.optimizer._constant_folding": "Skipping constant folding",
}


def export_onnx(model: ShippedModel, folder: Path) -> list[Path]:
    """Write ``model.onnx`` into a folder, and return the files.

    It is one file up to 1.5 GB; beyond, the weights lie in ``model.onnx.data`` beside it, as a file
    of protobuf ends at 2 GB.

    Inputs are what the tokenizer gives, int64 of shape (batch, length); each output has the name of
    a task and its logits, as ``ShippedModel.forward`` returns them. All tasks share one file,
    because a file for each would store the encoder once a task, and run it once a task. Every
    output is compared with PyTorch's on a padded batch of another size and length than was traced;
    if any differs, the folder is left as it was.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if the model is not one of 32 bits in evaluation mode, or the tokenizer gives
            what is not known here.
        RuntimeError: if a package is missing, or torch.onnx cannot write the model, or what it
            wrote answers otherwise.
    """
    check_packages()
    if not folder.is_dir():
        raise FileNotFoundError(f"The output folder {folder} does not exist.")
    _check_model(model)
    program = _traced(model)
    with TemporaryDirectory(dir=folder) as beside:
        write_program(program, Path(beside) / FILE)
        _check_answers(model, Path(beside) / FILE)
        return [file.replace(folder / file.name) for file in sorted(Path(beside).iterdir())]


def check_packages() -> None:
    """Raise a RuntimeError if a package that ONNX files need is missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise RuntimeError(
            f"ONNX export needs {', '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed: pip install "
            "'multiprune[onnx]'."
        )


class _Answers(nn.Module):
    """The logits of all tasks, from one pass of the encoder; inputs in the tokenizer's order."""

    def __init__(self, model: ShippedModel) -> None:
        super().__init__()
        self.encoder, self.heads = model.encoder, model.heads
        self.names = list(model.tokenizer.model_input_names)

    @override
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(self.names, inputs, strict=True))
        states = self.encoder(**named).last_hidden_state
        mask, embeddings = named["attention_mask"], embeddings_of(self.encoder)
        return tuple(head(states, mask, embeddings) for head in self.heads.values())


def _check_model(model: ShippedModel) -> None:
    check_is_encoder(model, "What is written as ONNX")
    types = {one.dtype for one in model.parameters()}
    if types != {torch.float32}:
        found = ", ".join(sorted(map(str, types)))
        raise ValueError(
            f"ONNX export needs a float32 model, but this one is {found}: convert it with "
            "`dtype` fp32."
        )
    if taken := sorted(set(model.heads) & set(model.tokenizer.model_input_names)):
        raise ValueError(f"The task {taken[0]!r} has the name of an ONNX input: rename it.")
    if any(module.training for module in model.modules()):
        raise ValueError("The model is in training mode: call model.eval() first.")
    names, known = set(model.tokenizer.model_input_names), set(_batch(model, 1, 2))
    if names != known:
        raise ValueError(
            "The tokenizer must give input_ids, attention_mask and perhaps token_type_ids, but "
            f"gives {', '.join(sorted(names))}."
        )


def _batch(model: ShippedModel, examples: int, length: int) -> dict[str, Tensor]:
    """Make random inputs; every example but the first is shorter than the one before it."""
    shape, device = (examples, length), model.encoder.device
    embeddings = model.encoder.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    tokens = torch.randint(
        embeddings.num_embeddings, shape, generator=torch.Generator().manual_seed(0)
    )
    lengths = length - torch.arange(examples) * length // (examples + 1)
    mask = torch.arange(length) < lengths[:, None]
    inputs = {
        "input_ids": tokens.where(mask, model.tokenizer.pad_token_id),
        "attention_mask": mask.long(),
    }
    if "token_type_ids" in model.tokenizer.model_input_names:
        types = getattr(model.encoder.config, "type_vocab_size", 1)
        second = torch.arange(length) >= length // 2
        inputs["token_type_ids"] = (second & mask).long() * int(types > 1)
    return {name: tensor.to(device) for name, tensor in inputs.items()}


@torch.no_grad()
def _traced(model: ShippedModel) -> ONNXProgram:
    answers = _Answers(model).eval()
    inputs = _batch(model, 2, 7)
    axes = tuple({0: "batch", 1: "length"} for _ in answers.names)
    try:
        with _quiet(), _without_empty_products(answers):
            program = torch.onnx.export(
                answers,
                tuple(inputs[name] for name in answers.names),
                input_names=answers.names,
                output_names=[f"logits/{task}" for task in model.heads],
                dynamic_shapes=(axes,),
                dynamo=True,
                verbose=False,
            )
    except OnnxExporterError as error:
        raise RuntimeError(
            f"torch.onnx cannot export this {model.encoder.config.model_type!r} encoder: "
            f"{_first_line(error.__cause__ or error)}"
        ) from error
    assert program is not None
    for node in program.model.graph.all_nodes():
        # It holds the source lines of each operation, with paths of this machine.
        node.metadata_props.clear()
    _name_outputs(program, list(model.heads))
    return program


def _name_outputs(program: ONNXProgram, tasks: Sequence[str]) -> None:
    """Call outputs by their tasks, and whatever torch.onnx has called so by another name."""
    graph = program.model.graph
    inner = [one for node in graph.all_nodes() for one in node.outputs]
    for value in [*inner, *graph.initializers.values()]:
        if value.name in tasks:
            value.name = f"inner/{value.name}"
    for value, task in zip(graph.outputs, tasks, strict=True):
        value.name = task


@contextmanager
def _without_empty_products(model: nn.Module) -> Iterator[None]:
    """Let linear layers without weights return zeros: ONNX Runtime multiplies no empty matrices.

    A feed-forward network that was dropped has two of them.
    """
    empty = [
        one for one in model.modules() if isinstance(one, nn.Linear) and not one.weight.numel()
    ]
    for linear in empty:
        linear.forward = partial(_zeros_of, linear)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for linear in empty:
            del linear.forward


def _zeros_of(linear: nn.Linear, states: Tensor) -> Tensor:
    return states.new_zeros((*states.shape[:-1], linear.out_features))


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what torch.onnx says about every model, and nothing else."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for start in _WARNINGS:
            warnings.filterwarnings("ignore", re.escape(start))
        for name, start in _LOGGED.items():
            logger = logging.getLogger(name)

            def others(record: logging.LogRecord, start: str = start) -> bool:
                return not record.getMessage().startswith(start)

            logger.addFilter(others)
            stack.callback(logger.removeFilter, others)
        yield


@torch.no_grad()
def _check_answers(model: ShippedModel, file: Path) -> None:
    """Compare the logits of all tasks at tokens that are not padding."""
    inputs = _batch(model, 3, _longest(model))
    mask = inputs["attention_mask"].bool()
    for task, found in zip(model.heads, _run(file, inputs), strict=True):
        expected = model(task, inputs)
        if expected.dim() == 3:
            expected, found = expected[mask], found[mask]
        share = float((expected - found).abs().max() / expected.abs().max().clamp(min=1))
        # Of NaN, no comparison is true.
        if not share <= TOLERANCE:
            raise RuntimeError(
                f"The logits of ONNX Runtime differ from those of PyTorch by {share:g} "
                f"(relative) for {task}, more than {TOLERANCE:g}; no file was written."
            )


def _run(file: Path, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    from onnxruntime import InferenceSession, SessionOptions
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    options = SessionOptions()
    # As many as PyTorch has: ONNX Runtime would count processors that this process may not use.
    options.intra_op_num_threads = torch.get_num_threads()
    given = {name: tensor.numpy(force=True) for name, tensor in inputs.items()}
    # They have no base of their own.
    names = ("Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException")
    try:
        session = InferenceSession(file, options, providers=["CPUExecutionProvider"])
        arrays = session.run(None, given)
    except tuple(getattr(errors, name) for name in names) as error:
        raise RuntimeError(
            f"ONNX Runtime cannot run the file of torch.onnx: {_first_line(error)}"
        ) from error
    device = inputs["attention_mask"].device
    return [torch.from_numpy(array).to(device) for array in arrays]


def _first_line(error: BaseException) -> str:
    return first_line(error)


def _longest(model: ShippedModel) -> int:
    """Return a length beyond the window of local attention, if the encoder has the positions."""
    # Half of the positions: RoBERTa and its kin begin to count behind the id of padding.
    positions = getattr(model.encoder.config, "max_position_embeddings", None) or 512
    return int(min(160, positions // 2, model.tokenizer.model_max_length))
