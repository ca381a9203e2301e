"""Wrong configurations are refused before anything large is imported."""

from __future__ import annotations

import atexit
import gc
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from application import ROOT

from multiprune.quick_exit import exit_quickly

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WRONG = {
    "budget.fraction=1.5": "`fraction` must be in (0, 1], but is 1.5",
    "task=rte data.mirror=./nowhere": "nowhere/glue/rte does not exist",
    "encoder.path=./nowhere": "nowhere/config.json does not exist",
    "optimizer.learning_rate=-1": "`learning_rate` must be above 0, but is -1",
    "data.batch_size=0": "`data.batch_size` must be a whole number of at least 1, but is 0",
    "schedule.start=0.9": "must not stop before it starts",
    "data/mixing=fixed": "one weight of at least 0 for each task",
    "trainer.max_epochs=null": "Set `trainer.max_epochs` or `trainer.max_steps`",
    "distillation=logits distillation.teacher=gone": "of an exported model, but gone",
    "pruner=fixed pruner.mask.run=gone": "`pruner.mask.run` must be the folder of a finished run",
    "experiment=campos2022_domain": "Missing values in the configuration: encoder.path",
    "logger=null": "one of its options, as in budget=fraction, but one of logger=null gives null",
}

SCRIPT = """
import runpy, sys
from hydra.core.global_hydra import GlobalHydra
for overrides in sys.argv[2:]:
    GlobalHydra.instance().clear()
    sys.argv = ["train.py", *overrides.split()]
    try:
        runpy.run_path(FILE, run_name="__main__")
    except SystemExit as error:
        print(error)
print(sorted({"torch", "transformers", "datasets", "pytorch_lightning"} & set(sys.modules)))
"""


@pytest.mark.slow
def test_what_a_configuration_tells_is_refused_without_torch(tmp_path: Path) -> None:
    script = SCRIPT.replace("FILE", repr(str(ROOT / "train.py")))
    done = subprocess.run(
        [sys.executable, "-c", script, "", *WRONG],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    *said, imported = done.stdout.splitlines()
    assert len(said) == len(WRONG), done.stderr
    for line, expected in zip(said, WRONG.values(), strict=True):
        assert line.startswith("error: ")
        assert expected in line
    assert imported == "[]"
    # Nothing is left of refused runs.
    assert [*tmp_path.rglob("*.json")] == []


def test_a_process_ends_without_a_search_for_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    at_exit: list[Callable[..., object]] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    exit_quickly()
    assert at_exit == [gc.freeze]
