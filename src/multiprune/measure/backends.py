"""By what a model is run: PyTorch, compiled PyTorch, or ONNX Runtime."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import override

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Maps inputs to the last hidden states; the device has done its work when it returns.
Forward = Callable[[Mapping[str, Tensor]], Tensor]


class Backend(ABC):
    """Runs encoders, and is timed doing so."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in tables and on the command line."""

    @property
    def device(self) -> str:
        """Where inputs must be."""
        return "cpu"

    @abstractmethod
    def load(self, encoder: PreTrainedModel) -> Forward:
        """Get an encoder ready; what fails, here or at the first inputs of a shape, raises."""


@dataclass(frozen=True)
class Eager(Backend):
    """PyTorch as it is; ``bf16`` runs under autocast."""

    on: str = "cpu"
    bf16: bool = False

    @property
    @override
    def name(self) -> str:
        return "-".join(["eager", *self._suffix()])

    @property
    @override
    def device(self) -> str:
        return self.on

    @override
    def load(self, encoder: PreTrainedModel) -> Forward:
        module: nn.Module = encoder
        return self._forward(module if self.on == "cpu" else copy.deepcopy(module).to(self.on))

    def _suffix(self) -> list[str]:
        return ([] if self.on == "cpu" else [self.on]) + (["bf16"] if self.bf16 else [])

    def _forward(self, module: Callable[..., Any]) -> Forward:
        @torch.no_grad()
        def forward(inputs: Mapping[str, Tensor]) -> Tensor:
            with torch.autocast(self.on, torch.bfloat16, enabled=self.bf16):
                states: Tensor = module(**inputs).last_hidden_state
            if self.on != "cpu":
                torch.cuda.synchronize()
            return states

        return forward


@dataclass(frozen=True)
class Compiled(Eager):
    """``torch.compile``, for each shape of inputs by itself; ``compiler`` is its backend."""

    compiler: str | Callable[..., Any] = "inductor"

    @property
    @override
    def name(self) -> str:
        return "-".join(["compiled", *self._suffix()])

    @override
    def load(self, encoder: PreTrainedModel) -> Forward:
        # A copy, because what is compiled stays attached to the module.
        module = copy.deepcopy(encoder).to(self.on)  # type: ignore[arg-type]
        forward = self._forward(torch.compile(module, dynamic=False, backend=self.compiler))

        def compiled(inputs: Mapping[str, Tensor]) -> Tensor:
            # All models share the code of their class, and beyond a limit of variants torch would
            # run the code as it is, in silence.
            with torch._dynamo.config.patch(recompile_limit=1000, fail_on_recompile_limit_hit=True):
                return forward(inputs)

        return compiled


@dataclass(frozen=True)
class OnnxRuntime(Backend):
    """ONNX Runtime on the CPU, with as many threads as PyTorch."""

    @property
    @override
    def name(self) -> str:
        return "onnx"

    @override
    def load(self, encoder: PreTrainedModel) -> Forward:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "encoder.onnx"
            _export(encoder, file)
            session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )

        def forward(inputs: Mapping[str, Tensor]) -> Tensor:
            arrays = {key: one.numpy() for key, one in inputs.items()}
            return torch.from_numpy(session.run(None, arrays)[0])

        return forward


class _HiddenStates(nn.Module):
    """An encoder with positional inputs and one output, as ONNX wants it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    @override
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        states: Tensor = found.last_hidden_state
        return states


def _export(encoder: nn.Module, file: Path) -> None:
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    # Two tensors: one that is given twice would be exported as one input.
    ids, mask = (torch.ones(2, 8, dtype=torch.long) for _ in range(2))
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own code
        logger.setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                _HiddenStates(encoder).eval(),
                (ids, mask),
                file,
                input_names=["input_ids", "attention_mask"],
                dynamic_shapes=(axes, axes),
                dynamo=True,
                verbose=False,
            )
        finally:
            logger.setLevel(level)


def backends_here() -> dict[str, Backend]:
    """Return the backends of this machine by name."""
    found: list[Backend] = [Eager(), Compiled(), OnnxRuntime()]
    if torch.cuda.is_available():
        for bf16 in (False, True):
            found += [Eager("cuda", bf16), Compiled("cuda", bf16)]
    return {backend.name: backend for backend in found}
