"""A ``config.json`` that asks for more than the weights have is refused before it is built."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from application import save_untrained
from torch import nn

import multiprune
from multiprune.export.loading import load

if TYPE_CHECKING:
    from pathlib import Path

MOST = 1000


def asks_for(run: Path, **sizes: int) -> Path:
    config = run / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | sizes))
    return run


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Note where each parameter is made, and stop those that would take for ever."""
    devices: list[torch.device] = []
    register = nn.Module.register_parameter

    def noted(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            devices.append(parameter.device)
        assert len(devices) < MOST
        register(self, name, parameter)

    monkeypatch.setattr(nn.Module, "register_parameter", noted)
    return devices


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"num_hidden_layers": 200_000}, "far more layers than model.safetensors"),
        ({"num_hidden_layers": 2}, "encoder.layer.1"),
        ({"hidden_size": 2_000_000}, "should be (2000000,)"),
        ({"vocab_size": 10**10}, "word_embeddings"),
        ({"intermediate_size": 10**9}, "intermediate"),
    ],
    ids=str,
)
def test_sizes_are_checked_before_anything_is_built(
    tmp_path: Path, sizes: dict[str, int], said: str, built: list[torch.device]
) -> None:
    run = save_untrained(tmp_path)
    built.clear()
    with pytest.raises(ValueError, match=r"config\.json") as error:
        load(asks_for(run, **sizes))
    assert said in str(error.value)
    assert built
    assert {one.type for one in built} == {"meta"}


def test_own_models_are_bounded_as_well(tmp_path: Path, built: list[torch.device]) -> None:
    run = save_untrained(tmp_path)
    (run / "model" / "heads.json").unlink()
    built.clear()
    with pytest.raises(ValueError, match="far more layers"):
        multiprune.load(asks_for(run, num_hidden_layers=200_000) / "model")
