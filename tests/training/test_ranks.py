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
        "step": self.pruner.progress.step,
        "examples": seen[-1],
        "masks": mask_digest(self.pruner.masks()),
        "kept": sum(int(mask.sum()) for mask in self.pruner.masks().values()),
        "parameters": sum(one.numel() for one in module.model.encoder.parameters()),
        "reduced": sum(one.numel() for one in trainer.strategy.model.parameters()),
        "trained": sum(one.numel() for group in trainer.optimizers[0].param_groups
                       for one in group["params"]),
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


Notes = list[dict[str, Any]]


def run_two_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *pruning: str
) -> tuple[dict[str, Any], Notes, Notes]:
    """Train with two processes; return the results and what each rank noted."""
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
    run = f"hydra.run.dir={tmp_path / 'run'}"
    command = [sys.executable, str(script), *devices, *small, *pruning, run]
    done = subprocess.run(
        command, cwd=tmp_path, timeout=300, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    results: dict[str, Any] = json.loads((tmp_path / "run" / "results.json").read_text())
    return results, notes_of(0, tmp_path), notes_of(1, tmp_path)


def assert_ranks_agree(first: Notes, second: Notes) -> None:
    # Four tasks of 48 rows in batches of 16, on two ranks: two steps each.
    assert [note["step"] for note in first] == [*range(1, 9)]
    for one, other in zip(first, second, strict=True):
        assert one["examples"] != other["examples"]
        for what in one.keys() - {"examples"}:
            assert one[what] == other[what], f"{what} of step {one['step']}"


@pytest.mark.slow
def test_two_processes_train_and_prune_one_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruning = ["pruner=movement", "budget.fraction=0.3"]
    results, first, second = run_two_ranks(tmp_path, monkeypatch, *pruning)
    # One layer of width 16: four projections of 16 x 16, two of 16 x 32; 30 % of 2,048.
    assert results["budget"]["asked"] == results["budget"]["kept"] == 614

    assert first[0]["kept"] == 2048
    assert first[-1]["kept"] == 614
    assert len({note["masks"] for note in first}) > 2
    assert_ranks_agree(first, second)
    assert results["steps"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["structured", "attribution"])
def test_two_processes_cut_one_model_and_train_on(
    pruner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruning = [f"pruner={pruner}", "pruner.granularity=[heads,neurons,layers]"]
    pruning += ["budget.fraction=0.3", "encoder.layers=2", "schedule.stop=0.6"]
    results, first, second = run_two_ranks(tmp_path, monkeypatch, *pruning)
    assert_ranks_agree(first, second)
    # 60 % of eight steps, rounded up: the cut is after the fifth.
    dense, small = first[0]["parameters"], first[-1]["parameters"]
    assert [note["parameters"] for note in first] == [dense] * 4 + [small] * 4
    removed = results["budget"]["dense"] - results["budget"]["kept"]
    assert dense - small >= removed > 0
    heads = first[0]["trained"] - dense
    for note in first:
        # DDP reduces, and the optimizer moves, exactly the parameters that there are.
        assert note["trained"] == note["reduced"] == note["parameters"] + heads
    assert len({note["state"] for note in first}) == 8


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

    with pytest.raises(RuntimeError, match=rf"step 9, in {layer}\.weight\.$"):
        pruning._check_ranks_agree(trainer_that_gathers(gathered))


def test_a_run_without_masks_has_nothing_to_compare() -> None:
    pruning = pruning_of_two_layers()
    pruning.pruner.masks = dict  # type: ignore[method-assign]

    def gathered(_: Tensor) -> Tensor:
        raise AssertionError("nothing is to be gathered")

    pruning._check_ranks_agree(trainer_that_gathers(gathered))
