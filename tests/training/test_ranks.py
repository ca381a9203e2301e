"""Several ranks: one real run of two processes, and what happens when masks differ."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from application import ROOT, SMALL
from torch import Tensor, nn

from multiprune.budget import FractionBudget
from multiprune.pruning.fingerprint import mask_checksums
from multiprune.pruning.magnitude import Magnitude
from multiprune.pruning.schedule import LinearSchedule
from multiprune.training import Pruning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# train.py, with a note of each rank after each optimizer step.
SCRIPT = """
import hashlib, json, os
from pathlib import Path
from multiprune.pruning.fingerprint import mask_digest
from multiprune.training import Pruning

NOTES = Path(os.environ["NOTES"])
after_step, batch_start = Pruning._after_step, Pruning.on_train_batch_start
seen = []

def sha(tensors):
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().numpy().tobytes())
    return digest.hexdigest()

def noting_batch(self, trainer, module, batch, batch_idx):
    seen.append(sha([batch.inputs["input_ids"]]))
    batch_start(self, trainer, module, batch, batch_idx)

def noting_step(self, trainer):
    after_step(self, trainer)
    module = trainer.lightning_module
    note = {
        "step": self.state_dict()["step"],
        "examples": seen[-1],
        "masks": mask_digest(self.pruner.masks()),
        "kept": sum(int(mask.sum()) for mask in self.pruner.masks().values()),
        "state": sha(module.state_dict().values()),
    }
    with (NOTES / f"rank{trainer.global_rank}").open("a") as file:
        print(json.dumps(note), file=file)

Pruning._after_step, Pruning.on_train_batch_start = noting_step, noting_batch
# Not runpy: Lightning starts the other rank by the name of this script.
exec(compile(Path(os.environ["TRAIN"]).read_text(), os.environ["TRAIN"], "exec"))
"""


def notes_of(rank: int, folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"rank{rank}").read_text().splitlines()]


def test_two_processes_train_and_prune_one_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for variable, value in {
        "NOTES": str(tmp_path),
        "TRAIN": str(ROOT / "train.py"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }.items():
        monkeypatch.setenv(variable, value)
    devices = ["trainer=ddp", "trainer.accelerator=cpu"]
    small = [one for one in SMALL if one != "trainer=cpu"]
    pruning = ["pruner=movement", "budget.fraction=0.3", f"hydra.run.dir={tmp_path / 'run'}"]
    command = [sys.executable, str(script), *devices, *small, *pruning]
    done = subprocess.run(
        command, cwd=tmp_path, timeout=300, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    results = json.loads((tmp_path / "run" / "results.json").read_text())
    # One layer of width 16: four projections of 16 x 16, two of 16 x 32; 30 % of 2,048.
    assert results["budget"]["asked"] == results["budget"]["kept"] == 614

    first, second = notes_of(0, tmp_path), notes_of(1, tmp_path)
    # Four tasks of 48 rows in batches of 16, on two ranks: two steps each.
    assert [note["step"] for note in first] == [*range(1, 9)]
    assert first[0]["kept"] == 2048
    assert first[-1]["kept"] == 614
    assert len({note["masks"] for note in first}) > 2
    for one, other in zip(first, second, strict=True):
        assert one["examples"] != other["examples"]
        for what in ("step", "masks", "kept", "state"):
            assert one[what] == other[what], f"{what} of step {one['step']}"
    assert results["steps"] == 8


def pruning_of_two_layers() -> Pruning:
    pruner = Magnitude(budget=FractionBudget(fraction=0.5))
    pruning = Pruning(pruner, LinearSchedule(start=0.0, stop=1.0))
    pruning.prepare(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    return pruning


def trainer_that_gathers(all_gather: Callable[[Tensor], Tensor]) -> Any:
    return SimpleNamespace(
        world_size=2, global_step=9, strategy=SimpleNamespace(all_gather=all_gather)
    )


def test_ranks_with_the_same_masks_go_on() -> None:
    pruning = pruning_of_two_layers()
    pruning._check_ranks_agree(trainer_that_gathers(lambda own: torch.stack([own, own])))


@pytest.mark.parametrize("layer", ["0", "1"])
def test_ranks_with_different_masks_stop_and_name_the_layer(layer: str) -> None:
    pruning = pruning_of_two_layers()
    masks = {path: mask.clone() for path, mask in pruning.pruner.masks().items()}
    masks[f"{layer}.weight"][3, 2] = False

    def gathered(own: Tensor) -> Tensor:
        return torch.stack([own, mask_checksums(masks)])

    with pytest.raises(RuntimeError, match=rf"step 9, but they differ in {layer}\.weight\.$"):
        pruning._check_ranks_agree(trainer_that_gathers(gathered))


def test_a_run_without_masks_has_nothing_to_compare() -> None:
    pruning = pruning_of_two_layers()
    pruning.pruner.finalize()
    pruning.pruner.masks = dict  # type: ignore[method-assign]

    def gathered(_: Tensor) -> Tensor:
        raise AssertionError("nothing is to be gathered")

    pruning._check_ranks_agree(trainer_that_gathers(gathered))
