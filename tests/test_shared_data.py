"""The tasks of ``conf/task`` on real data, where a mirror of them lies beside the project."""

from __future__ import annotations

import pytest
from application import ROOT, composed
from hydra.utils import instantiate

from multiprune.data.source import HubSource

MIRROR = ROOT.parent / "shared" / "data"
ENCODER = ROOT.parent / "shared" / "models" / "minilm-l6"
SUITES = {"demo", "glue", "glue_core", "english"}
TASKS = sorted(
    file.stem
    for file in (ROOT / "conf" / "task").glob("*.yaml")
    if file.stem not in SUITES and "HubSource" in file.read_text()
)


def test_there_are_tasks() -> None:
    assert len(TASKS) >= 21


@pytest.mark.skipif(not MIRROR.is_dir(), reason=f"there is no mirror at {MIRROR}")
@pytest.mark.parametrize("name", TASKS)
def test_task_fits_its_data(name: str) -> None:
    task = instantiate(composed(f"task={name}").task[name], _convert_="all")
    assert isinstance(task.source, HubSource)
    for split in ("train", "validation", "test"):
        rows = task.source.load(split, mirror=MIRROR)
        if rows is None:
            assert split == "test"
            continue
        task.check_columns(rows)
        labels = task.encode_labels(rows)
        assert len(labels) == len(rows.table)
        # Every class of the label space occurs, and so does either half of a scale.
        classes = {label > 2.5 for label in labels} if task.num_outputs == 1 else set(labels)
        assert len(classes) == max(2, task.num_outputs)


@pytest.mark.skipif(not ENCODER.is_dir(), reason=f"there is no encoder at {ENCODER}")
def test_real_encoder_has_as_many_linear_weights_as_its_documentation_says() -> None:
    from multiprune.budget import ParameterLedger
    from multiprune.models.encoder import pretrained

    ledger = ParameterLedger.of(pretrained(str(ENCODER)).model)
    assert ledger.dense["encoder_linear"] == 10_616_832
    assert sum(ledger.dense.values()) == 22_713_216 - 384 * 384 - 384  # less the pooler
