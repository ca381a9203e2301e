"""``sweep/sparse_transfer.yaml``, stage by stage, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from application import NARROW, ROOT, composed, results_of
from hydra.core.hydra_config import HydraConfig

from multiprune.export.kept import kept_weights
from multiprune.report.page.format import cells
from multiprune.report.write import Report
from multiprune.start import run
from multiprune.tasks.synthetic import agreement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig

ARMS = {
    "general": ("general_dense", "general_sparse"),
    "domain": ("domain_dense", "domain_sparse"),
    "tasks": (
        "dense", "sparse_pretraining", "sparse_domain_skipped", "sparse_finetuning",
        "dense_general",
    ),
}  # fmt: skip
STEPS = 6


def job(*overrides: str, stage: str, arm: str, folder: Path | None = None) -> DictConfig:
    """Return the configuration of a job of the sweep."""
    given = (f"stage={stage}", f"arm={arm}", *overrides)
    return composed(*given, config_name="sparse_transfer", directory="sweep", folder=folder)


@pytest.mark.slow
def test_every_arm_of_a_stage_takes_its_encoder_from_one_of_those_before() -> None:
    known: set[Path] = set()
    for stage, arms in ARMS.items():
        made = set()
        for arm, fraction in product(arms, (0.2, 0.1)):
            size = () if "dense" in arm else (f"budget.fraction={fraction}",)
            config = job("seed=1", *size, stage=stage, arm=arm)
            assert (config.budget.get("fraction") is None) == ("dense" in arm)
            path = config.encoder.get("path", "")
            assert (Path(path) in known) == (stage != "general")
            if "mask" in config.pruner:
                assert config.pruner.mask.run == path
                assert f"sparse-{fraction}" in path
            sweep = HydraConfig.get().sweep
            if stage != "tasks":  # whose folders have names made of overrides
                made.add(Path(sweep.dir) / sweep.subdir)
        assert set(HydraConfig.get().sweeper.params.arm.split(",")) == set(arms)
        assert {one.parts[2] for one in made} <= {stage}
        known |= made
    assert len(known) == 6


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["general", "domain"])
def test_the_teacher_of_a_stage_is_its_dense_run_of_the_same_seed(stage: str) -> None:
    job("seed=1", stage=stage, arm=f"{stage}_dense")
    sweep = HydraConfig.get().sweep
    dense = Path(sweep.dir) / sweep.subdir
    taught = job("seed=1", f"teacher={stage}", stage=stage, arm=f"{stage}_sparse")
    assert Path(taught.distillation.teacher) == dense
    assert taught.distillation.weight == 1.0


@pytest.mark.slow
def test_a_stage_before_that_is_missing_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Paths of the sweep are relative, and must not be taken for names on the hub.
    monkeypatch.chdir(tmp_path)
    sentence = "must be a folder with a model in it, but {}/config.json does not exist"
    for arm in ("domain_dense", "domain_sparse"):
        config = job(stage="domain", arm=arm, folder=tmp_path / arm)
        with pytest.raises(SystemExit) as error:
            run(config)
        assert sentence.format(config.encoder.path) in str(error.value)
        assert "\n" not in str(error.value)


def mirror(folder: Path) -> Path:
    """Write corpora of a few embedded sentences where both tasks look for them."""
    for number, corpus in enumerate(
        ("general_text/books", "general_text/wiki", "general_text/misc", "biomed/corpus")
    ):
        (folder / corpus).mkdir(parents=True)
        for split, count in (("train", 60), ("validation", 20)):
            table = pyarrow.table({"text": agreement(count, number)["sentence"]})
            pyarrow.parquet.write_table(table, folder / corpus / f"{split}.parquet")
    return folder


def start(folder: Path, stage: str, arms: Sequence[str], *overrides: str) -> str:
    command = [
        *(sys.executable, str(ROOT / "train.py"), "-cd", str(ROOT / "sweep")),
        *("-cn", "sparse_transfer", f"stage={stage}", f"arm={','.join(arms)}", "seed=0"),
        *(f"data.mirror={folder / 'mirror'}", f"data.cache={folder / 'cache'}"),
        *("trainer=cpu", "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"),
        *("trainer.max_epochs=-1", f"trainer.max_steps={STEPS}", "data.batch_size=4"),
        *("data.max_length=24", "rank_every_n_steps=1", *overrides),
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_masks_stay_from_stage_to_stage_and_the_report_shows_the_chains(tmp_path: Path) -> None:
    mirror(tmp_path / "mirror")
    start(tmp_path, "general", ["general_dense"], *NARROW)
    start(tmp_path, "general", ["general_sparse"], "teacher=general", *NARROW)
    start(tmp_path, "domain", ARMS["domain"])
    start(tmp_path, "tasks", ["dense", "sparse_pretraining"], "task=agreement")
    runs = tmp_path / "runs" / "sparse_transfer"
    (sparse,) = (runs / "tasks").glob("*arm-sparse_pretraining*")
    (dense,) = (runs / "tasks").glob("*arm-dense*")
    chain = [runs / stage / "sparse-0.2_seed-0" for stage in ("general", "domain")]
    chain.append(sparse)

    masks = [layers_of(kept_weights(one)) for one in chain]
    assert masks[0]
    for path, first in masks[0].items():
        assert 0 < first.float().mean() < 0.21
        for later in masks[1:]:
            assert torch.equal(later[path], first)
    assert all(mask.float().mean() > 0.9 for mask in layers_of(kept_weights(dense)).values())

    for last, earlier in ((sparse, chain[:2]), (dense, [runs / "general" / "dense_seed-0"])):
        results = results_of(last)
        assert [one["steps"] for one in (*results["lineage"], results)] == [STEPS] * 3
        assert results["lineage"][0]["run"] == str(earlier[0])
        weights = [one["mask_sha256"] for one in (*results["lineage"], results)]
        assert len(set(weights)) == 1
    (shown,) = (one for one in Report.read([runs]).sections if one.name == "transfer")
    table = next(one for one in shown.tables if one.name == "transfer-test")
    assert [[cell.text for cell in row[:6]] for row in cells(table)] == [
        ["mlm dense → biomed_mlm dense → tasks dense", "1.000", "2,048", "1", "6 + 6 + 6", "18"],
        [
            "mlm pruned → biomed_mlm mask kept → tasks mask kept",
            *("0.200", f"{2048 // 5:,}", "1", "6 + 6 + 6", "18"),
        ],
    ]
    assert "Chains were trained for the same number of steps" in shown.text[-1]
    again = start(tmp_path, "domain", ARMS["domain"])
    assert again.count("is finished already") == 2


def layers_of(masks: dict[str, Any]) -> dict[str, Any]:
    """Leave the embeddings out, which are never pruned."""
    return {path: mask for path, mask in masks.items() if "embeddings" not in path}
