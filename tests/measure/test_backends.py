from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import torch
import torch._dynamo.testing
from shipped import cut, dense
from torch import Tensor, nn

from multiprune.measure.backends import Backend, Compiled, Eager, OnnxRuntime, backends_here
from multiprune.measure.cost import tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@pytest.mark.parametrize("backend", [Eager(), Compiled(compiler="eager"), OnnxRuntime()], ids=repr)
def test_backend_computes_what_the_encoder_computes(backend: Backend) -> None:
    if isinstance(backend, OnnxRuntime):
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    encoder = cut()
    forward = backend.load(encoder)
    for batch, length in ((1, 3), (4, 11)):
        inputs = tokens(encoder.config, batch, length)
        with torch.no_grad():
            expected = encoder(**inputs).last_hidden_state
        torch.testing.assert_close(forward(inputs), expected, atol=1e-5, rtol=1e-5)


class Doubling(nn.Module):
    """The least that is an encoder to a backend."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=input_ids * 2 + attention_mask)


def test_every_shape_is_compiled_though_models_share_their_code() -> None:
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounter()
    backend = Compiled(compiler=counter)
    forwards = [backend.load(cast("PreTrainedModel", Doubling())) for _ in range(2)]
    sizes = [(batch, length) for batch in (2, 3) for length in range(4, 10)]
    assert len(sizes) > torch._dynamo.config.recompile_limit
    for batch, length in sizes:
        for forward in forwards:
            forward(tokens(dense().config, batch, length))
    assert counter.frame_count >= len(sizes)


def test_lower_precision_stays_close_and_differs() -> None:
    encoder = dense()
    inputs = tokens(encoder.config, 2, 6)
    full, lower = (Eager(bf16=bf16).load(encoder)(inputs) for bf16 in (False, True))
    assert not torch.equal(full, lower.float())
    torch.testing.assert_close(lower.float(), full, atol=0.05, rtol=0.05)


def test_backends_have_names_of_their_own() -> None:
    here = backends_here()
    assert list(here)[:3] == ["eager", "compiled", "onnx"]
    assert all(backend.name == name for name, backend in here.items())
    assert (Eager("cuda", bf16=True).name, Compiled("cuda").name) == (
        "eager-cuda-bf16",
        "compiled-cuda",
    )


def test_backends_of_a_gpu_are_there_where_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, count in ((False, 3), (True, 7)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert len(backends_here()) == count
