from __future__ import annotations

import pytest

from multiprune.report.layers import grid, mean_density, position_of


@pytest.mark.parametrize(
    ("path", "position"),
    [
        (
            "model.encoder.encoder.layer.11.attention.self.query.weight",
            ("11", "attention.self.query"),
        ),
        ("model.encoder.encoder.layer.0.output.dense.ranks", ("0", "output.dense.ranks")),
        (
            "model.encoder.encoder.albert_layer_groups.0.albert_layers.1.ffn.weight",
            ("0.1", "ffn"),
        ),
        (
            "model.encoder.encoder.block.1.layer.0.SelfAttention.q.weight",
            ("1.0", "SelfAttention.q"),
        ),
        (
            "model.encoder.decoder.block.1.layer.0.SelfAttention.q.weight",
            ("decoder 1.0", "SelfAttention.q"),
        ),
        ("model.encoder.embeddings.word_embeddings.weight", ("", "embeddings.word_embeddings")),
    ],
)
def test_position_is_read_off_the_path(path: str, position: tuple[str, str]) -> None:
    assert position_of(path) == position


def test_densities_are_averaged_over_runs() -> None:
    first, second = "model.encoder.layer.0.a.weight", "model.encoder.layer.1.a.weight"
    assert mean_density([{first: 0.25, second: 0.5}, {first: 0.75}]) == {
        ("0", "a"): 0.5,
        ("1", "a"): 0.5,
    }


def test_positions_that_are_missing_stay_empty() -> None:
    layers, matrices, cells = grid({("0", "a"): 1.0, ("1", "b"): 2.0})
    assert (layers, matrices) == (["0", "1"], ["a", "b"])
    assert cells == [[1.0, None], [None, 2.0]]
