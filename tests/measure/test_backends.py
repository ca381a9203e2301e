from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import torch
import torch._dynamo.testing
from shipped import cut, dense, drop_last, factor, with_tokenizer
from torch import Tensor, nn

from multiprune.measure.backends import Backend, Compiled, Eager, OnnxRuntime, backends
from multiprune.measure.cost import tokens

if TYPE_CHECKING:
    from multiprune.models.encoder import Encoder


@pytest.mark.slow
@pytest.mark.parametrize("backend", [Eager(), Compiled(compiler="eager"), OnnxRuntime()], ids=repr)
def test_backend_computes_what_the_encoder_computes(backend: Backend) -> None:
    if isinstance(backend, OnnxRuntime):
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    encoder = drop_last(factor(cut(), 3))
    forward = backend.load(with_tokenizer(encoder))
    for batch, length in ((1, 3), (4, 11)):
        inputs = tokens(encoder.config, batch, length)
        with torch.no_grad():
            expected = encoder(**inputs).last_hidden_state
        torch.testing.assert_close(forward(inputs), expected, atol=1e-5, rtol=1e-5)


class Doubling(nn.Module):
    """The least that is an encoder to a backend."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=input_ids * 2 + attention_mask)


@pytest.mark.slow
def test_every_shape_is_compiled_though_models_share_their_code() -> None:
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounter()
    backend = Compiled(compiler=counter)
    forwards = [backend.load(cast("Encoder", SimpleNamespace(model=Doubling()))) for _ in range(2)]
    sizes = [(batch, length) for batch in (2, 3) for length in range(4, 10)]
    assert len(sizes) > torch._dynamo.config.recompile_limit
    for batch, length in sizes:
        for forward in forwards:
            forward(tokens(dense().config, batch, length))
    assert counter.frame_count >= len(sizes)


def test_lower_precision_stays_close_and_differs() -> None:
    encoder = dense()
    inputs = tokens(encoder.config, 2, 6)
    full, lower = (Eager(bf16=bf16).load(with_tokenizer(encoder))(inputs) for bf16 in (False, True))
    assert not torch.equal(full, lower.float())
    torch.testing.assert_close(lower.float(), full, atol=0.05, rtol=0.05)


def test_all_backends_of_the_processor_are_there_by_default() -> None:
    assert [one.name for one in backends(devices=["cpu"])] == ["eager", "compiled", "onnx"]
    assert [one.name for one in backends(["onnx", "eager"], ["cpu"])] == ["eager", "onnx"]


def test_backends_of_a_gpu_are_there_where_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert {one.device for one in backends()} == {"cpu"}
    with pytest.raises(ValueError, match="A device must be one of cpu here, but one is 'cuda'"):
        backends(devices=["cuda"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    on_gpu = [one.name for one in backends() if one.device == "cuda"]
    assert on_gpu == ["eager-cuda", "compiled-cuda", "eager-cuda-bf16", "compiled-cuda-bf16"]
    with pytest.raises(ValueError, match="onnx on cuda"):
        backends(["onnx"], ["cuda"])


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["tpu"], "A backend must be one of eager, compiled, onnx here, but one is 'tpu'"),
        (["eager", ""], "one is ''"),
        ([], "No backend can run: none"),
    ],
)
def test_backends_that_are_not_there_are_refused(kinds: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        backends(kinds)
