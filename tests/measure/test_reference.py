from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import torch
from shipped import cut, dense, low_rank, ship

from multiprune.export.checkpoint import load_encoder
from multiprune.measure.cost import tokens
from multiprune.measure.reference import Blueprint, dense_of
from multiprune.models.from_scratch import from_scratch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn
    from transformers import PreTrainedModel


def shapes(encoder: PreTrainedModel) -> dict[str, torch.Size]:
    return {name: one.shape for name, one in encoder.named_parameters()}


@pytest.fixture(params=["cut", "low rank", "dense"])
def shipped(request: pytest.FixtureRequest, tmp_path: Path) -> PreTrainedModel:
    made = {"cut": cut(), "low rank": low_rank(3), "dense": dense()}
    return load_encoder(ship(tmp_path / "model", made[request.param]))


def test_dense_model_has_the_shapes_before_pruning(shipped: PreTrainedModel) -> None:
    found = dense_of(shipped)
    assert shapes(found) == shapes(dense())
    states = found(**tokens(found.config, 2, 5)).last_hidden_state
    assert torch.isfinite(states).all()


def test_dense_model_of_an_encoder_cut_in_memory_has_the_shapes_before() -> None:
    assert shapes(dense_of(cut())) == shapes(dense())


def test_blueprint_builds_the_shapes_that_were_loaded(shipped: PreTrainedModel) -> None:
    built = Blueprint.of(shipped).build()
    assert shapes(built) == shapes(shipped)
    assert not built.training


def test_models_pruned_from_one_have_one_dense_blueprint(tmp_path: Path) -> None:
    folders = [ship(tmp_path / "a", cut()), ship(tmp_path / "b", low_rank(2))]
    first, second = (Blueprint.of(load_encoder(folder)).dense() for folder in folders)
    assert first == second
    other = from_scratch(layers=1, hidden=16, heads=4, intermediate=32).model
    assert Blueprint.of(other).dense() != first


def test_dense_model_keeps_precision_and_stays_without_a_pooler() -> None:
    encoder = dense()
    cast("nn.Module", encoder).to(torch.bfloat16)
    found = dense_of(encoder)
    assert found.dtype == torch.bfloat16
    assert getattr(found, "pooler", None) is None


def test_building_leaves_the_random_state_alone() -> None:
    model = dense()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dense_of(model)
    assert torch.equal(torch.rand(3), expected)
