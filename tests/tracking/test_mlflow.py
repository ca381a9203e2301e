"""The MLflow logger, read back by MLflow's own client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tracked_world import description, outcome

from multiprune.tracking.tracker import conclude, tracked

if TYPE_CHECKING:
    from pathlib import Path

mlflow = pytest.importorskip("mlflow", reason="MLflow is large, and an extra of its own")


def run(folder: Path, *, fail: bool = False, **changed: Any) -> None:
    from multiprune.tracking.mlflow import MlflowTracker

    for name in ("run", "model"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    logger = MlflowTracker(
        folder=str(folder / "run"),
        store=str(folder / "store"),
        experiment="tests",
        predictions=1,
        model=True,
    )
    with tracked([logger], description(**changed)):
        logger.log_metrics({"density": 0.5}, step=3)
        if fail:
            raise RuntimeError("the machine goes down")
        conclude([logger], outcome(folder / "model"))


def runs(folder: Path) -> list[Any]:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'store' / 'mlflow.db'}")
    return list(client.search_runs([client.get_experiment_by_name("tests").experiment_id]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_is_one_run_with_all_that_came_of_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="goes down"):
        run(tmp_path, fail=True)
    (failed,) = runs(tmp_path)
    assert failed.info.status == "FAILED"
    run(tmp_path, config={"seed": 7})
    (one,) = runs(tmp_path)
    assert one.info.run_id == failed.info.run_id
    assert (one.info.status, one.info.run_name) == ("FINISHED", "pruner=movement,seed=0")
    assert one.data.params == {"seed": "0", "budget/fraction": "0.5"}
    assert one.data.tags["group"] == "sparsity"
    assert one.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert one.data.metrics == {
        "density": 0.5,
        "score": 0.75,
        "kept": 614,
        "val/rte/accuracy": 0.5,
    }
    artifacts = {
        str(file.relative_to(next((tmp_path / "store" / "artifacts").iterdir()) / "artifacts"))
        for file in (tmp_path / "store" / "artifacts").rglob("*.*")
    }
    assert artifacts == {"density_by_layer.png", "model/config.json", "predictions/rte.json"}
