from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from shipped_world import TASKS, TOKENIZER, network

from multiprune.export.checkpoint import save_model
from multiprune.export.convert import ExportSettings, export_model
from multiprune.export.kept import kept_weights

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("storage", ["dense", "bitmask"])
def test_kept_is_what_is_not_zero_however_it_is_stored(storage: str, tmp_path: Path) -> None:
    model = network("zeros")
    save_model(tmp_path / "run" / "model", model, TOKENIZER, TASKS)
    folder = tmp_path / "run"
    if storage == "bitmask":
        export_model(folder, tmp_path / "small", ExportSettings(storage=storage))
        folder = tmp_path / "small"
    kept = kept_weights(folder)
    matrices = {path: one for path, one in model.encoder.named_parameters() if one.dim() == 2}
    assert kept.keys() == matrices.keys()
    for path, weight in matrices.items():
        assert kept[path].dtype == torch.bool
        assert torch.equal(weight * kept[path], weight)
        assert weight[kept[path]].all()
    query = kept["encoder.layer.0.attention.self.query.weight"]
    assert 0 < query.sum() < query.numel()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be the folder of a finished run"):
        kept_weights(tmp_path)
