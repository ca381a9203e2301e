from __future__ import annotations

import pytest
import torch

from multiprune.training.precision import best_precision


@pytest.mark.parametrize(
    ("has_amx", "cpu", "expected"),
    [(True, True, "bf16-mixed"), (True, False, "32-true"), (False, True, "32-true")],
)
def test_a_processor_computes_in_bf16_if_it_has_that_and_is_asked(
    has_amx: bool, cpu: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    assert best_precision(cpu=cpu) == expected


def test_a_torch_that_does_not_tell_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert best_precision(cpu=True) == "32-true"
