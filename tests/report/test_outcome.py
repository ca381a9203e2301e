from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from run_folders import record_with

from multiprune.report.outcome import density_map, summary
from multiprune.runs.budget_outcome import BudgetOutcome

if TYPE_CHECKING:
    from multiprune.runs.record import RunRecord


def results(**changed: Any) -> RunRecord:
    content: dict[str, Any] = {
        "score": 0.7,
        "validation": {"rte": {"accuracy": 0.7, "f1": 0.6}},
        "test": {"rte": {"accuracy": 0.5, "f1": 0.4}},
        "budget": BudgetOutcome(scope="encoder_linear", dense=1000, asked=260, kept=250),
        "steps": 1,
        "wall_seconds": 1.0,
    }
    return record_with(**{**content, **changed})


def test_summary_has_the_names_of_the_curves() -> None:
    assert summary(results()) == {
        "score": 0.7,
        "kept": 250,
        "density": 0.25,
        "val/rte/accuracy": 0.7,
        "val/rte/f1": 0.6,
        "test/rte/accuracy": 0.5,
        "test/rte/f1": 0.4,
    }


def test_tasks_without_test_labels_have_no_test_scores() -> None:
    assert not [name for name in summary(results(test={})) if name.startswith("test")]


@pytest.mark.parametrize("layers", [1, 12])
def test_a_map_has_a_row_for_every_layer(layers: int) -> None:
    path = "model.encoder.encoder.layer.{}.output.dense.weight"
    image = density_map({path.format(layer): layer / 12 for layer in range(layers)})
    assert image.mode == "RGB"
    # More rows, more ink.
    assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > layers
    assert image.height > 30 * layers
