"""Runs of earlier versions, whose metrics were functions, are read as those of today."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hydra.utils import instantiate
from run_folders import results

from multiprune.metrics import Accuracy, AnswerF1, Metric
from multiprune.metrics.catalogue import is_known
from multiprune.runs.older_record import _METRICS
from multiprune.specialize.origin import read_origin

if TYPE_CHECKING:
    from pathlib import Path


def metrics_of(folder: Path, **paths: str) -> dict[str, Metric]:
    getter = "hydra.utils.get_method"
    metrics = {name: {"_target_": getter, "path": path} for name, path in paths.items()}
    content = results({"one": 1.0}, kept=10)
    content["config"]["task"]["one"]["metrics"] = metrics
    (folder / "results.json").write_text(json.dumps(content))
    found: dict[str, Metric] = instantiate(
        read_origin(folder).config["task"]["one"]["metrics"], _convert_="all"
    )
    return found


def test_functions_are_the_metrics_of_today(tmp_path: Path) -> None:
    found = metrics_of(
        tmp_path, a="multiprune.tasks.metrics.accuracy", f1="multiprune.tasks.answer_text.f1"
    )
    assert found == {"a": Accuracy(), "f1": AnswerF1()}
    every = metrics_of(tmp_path, **{str(number): path for number, path in enumerate(_METRICS)})
    assert len(every) == 13
    assert all(is_known(metric) for metric in every.values())


def test_other_functions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"names mine\.accuracy, which is not imported"):
        metrics_of(tmp_path, accuracy="mine.accuracy")
