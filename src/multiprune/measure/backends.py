"""Inference backends: PyTorch, compiled PyTorch, ONNX Runtime."""

from __future__ import annotations

import copy
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from multiprune.export.onnx import FILE, export_onnx
from multiprune.export.shipped import ShippedModel
from multiprune.measure.onnx_encoder import OnnxEncoder
from multiprune.models.task_heads import TaskHeads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.models.encoder import Encoder

#: Maps inputs to the last hidden states; the device has done its work when it returns.
Forward = Callable[[Mapping[str, Tensor]], Tensor]

KINDS, DEVICES = ("eager", "compiled", "onnx"), ("cpu", "cuda")


class Backend(ABC):
    """Runs encoders, and is timed doing so."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in tables."""

    @property
    def device(self) -> str:
        """Where inputs must be."""
        return "cpu"

    def runs(self, encoder: Encoder) -> bool:
        """Whether it runs this kind of model."""
        return not isinstance(encoder, OnnxEncoder)

    @abstractmethod
    def load(self, encoder: Encoder) -> Forward:
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
    def load(self, encoder: Encoder) -> Forward:
        module: nn.Module = encoder.model
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
    def load(self, encoder: Encoder) -> Forward:
        # A copy, because what is compiled stays attached to the module.
        module = copy.deepcopy(encoder.model).to(self.on)  # type: ignore[arg-type]
        forward = self._forward(torch.compile(module, dynamic=False, backend=self.compiler))

        def compiled(inputs: Mapping[str, Tensor]) -> Tensor:
            # All models share the code of their class, and beyond a limit of variants torch would
            # run the code as it is, in silence.
            with torch._dynamo.config.patch(recompile_limit=1000, fail_on_recompile_limit_hit=True):
                return forward(inputs)

        return compiled


@dataclass(frozen=True)
class OnnxRuntime(Backend):
    """ONNX Runtime on the CPU, with as many threads as PyTorch; files as they are exported."""

    @property
    @override
    def name(self) -> str:
        return "onnx"

    @override
    def runs(self, encoder: Encoder) -> bool:
        return True

    @override
    def load(self, encoder: Encoder) -> Forward:
        if isinstance(encoder, OnnxEncoder):
            return self._forward(self._session(encoder.file))
        model = ShippedModel(
            encoder.model, TaskHeads({"states": _HiddenStates()}), {}, encoder.tokenizer
        ).eval()
        with tempfile.TemporaryDirectory() as folder:
            export_onnx(model, Path(folder))
            return self._forward(self._session(Path(folder) / FILE))

    def _forward(self, session: Any) -> Forward:
        names = [one.name for one in session.get_inputs()]

        def forward(inputs: Mapping[str, Tensor]) -> Tensor:
            # The one input that an encoder does without is the number of the segment.
            absent = torch.zeros_like(inputs["input_ids"])
            arrays = {name: inputs.get(name, absent).numpy() for name in names}
            return torch.from_numpy(session.run(None, arrays)[0])

        return forward

    def _session(self, file: Path) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


class _HiddenStates(nn.Module):
    """In place of a head: what it is handed."""

    @override
    def forward(self, states: Tensor, *_: Tensor) -> Tensor:
        return states


def backends(kinds: Sequence[str] = KINDS, devices: Sequence[str] | None = None) -> list[Backend]:
    """Return backends of this machine: on CUDA in fp32 and bf16; ONNX Runtime on the CPU alone.

    ``devices`` are by default those that are there.

    Raises:
        ValueError: if a kind or a device is not known or not here, or no backend is left.
    """
    here = [one for one in DEVICES if one == "cpu" or torch.cuda.is_available()]
    devices = here if devices is None else devices
    for what, named, known in (("backend", kinds, KINDS), ("device", devices, here)):
        for one in named:
            if one not in known:
                raise ValueError(
                    f"A {what} must be one of {', '.join(known)} here, but one is {one!r}."
                )
    found: list[Backend] = []
    for device in devices:
        for bf16 in (False,) if device == "cpu" else (False, True):
            found += [Eager(device, bf16)] if "eager" in kinds else []
            found += [Compiled(device, bf16)] if "compiled" in kinds else []
        found += [OnnxRuntime()] if "onnx" in kinds and device == "cpu" else []
    if not found:
        raise ValueError(
            f"No backend can run: {', '.join(kinds) or 'none'} on "
            f"{', '.join(devices) or 'no device'}."
        )
    return found
