from __future__ import annotations

import csv
import gc
import re
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from application import SMALL, composed, results_of, run_in, run_interrupted, save_untrained
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from pytorch_lightning.strategies import FSDPStrategy
from safetensors.torch import load_file
from transformers import AutoModel

from multiprune.assembly import check_processes, check_strategy
from multiprune.config import plain
from multiprune.models.multitask import MultitaskModel
from multiprune.runs.masks import Masks, read_masks
from multiprune.runs.predictions import read_predictions
from multiprune.runs.record import RunRecord, is_finished
from multiprune.runs.status import read_status
from multiprune.tasks.classification import Classification

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_in(folder, *SMALL, "pruner=movement", "budget.fraction=0.3", "logger=[csv,tensorboard]")
    return folder


def test_results_hold_what_the_run_was_asked_for(finished: Path) -> None:
    results = results_of(finished)
    # One layer of width 16: four projections of 16 x 16, two of 16 x 32.
    dense = 4 * 16 * 16 + 2 * 16 * 32
    assert results["budget"] == {
        "scope": "encoder_linear",
        "dense": dense,
        "asked": int(0.3 * dense),
        "kept": int(0.3 * dense),
    }
    assert results["config"]["pruner"]["score_learning_rate"] == 0.01
    recorded = {name: (task["kind"], [*task["metrics"]]) for name, task in results["tasks"].items()}
    assert recorded == {
        "agreement": ("classes", ["accuracy"]),
        "entailment": ("classes", ["accuracy"]),
        "quantity": ("number", ["pearson", "spearman"]),
        "roles": ("tags", ["macro_f1", "accuracy"]),
    }
    assert results["method"]["name"] == "Movement"
    assert results["seed"] == 0
    assert results["steps"] == 12
    assert results["versions"]["torch"] == torch.__version__
    assert results["wall_seconds"] > 0
    assert results["seconds_per_step"] > 0


def test_score_is_the_mean_of_the_first_metrics(finished: Path) -> None:
    results = results_of(finished)
    firsts = [next(iter(metrics.values())) for metrics in results["validation"].values()]
    assert list(results["validation"]) == ["agreement", "entailment", "quantity", "roles"]
    assert results["score"] == pytest.approx(sum(firsts) / 4)
    assert set(results["test"]) == set(results["validation"])


def test_model_folder_holds_what_the_ledger_says(finished: Path) -> None:
    results = results_of(finished)
    weights = load_file(finished / "model" / "model.safetensors")
    linear = {
        key: tensor for key, tensor in weights.items() if tensor.dim() == 2 and "embed" not in key
    }
    nonzero = sum(int(tensor.count_nonzero()) for tensor in linear.values())
    assert nonzero == results["budget"]["kept"]
    for path, density in results["density"].items():
        tensor = weights[path.removeprefix("model.encoder.")]
        assert int(tensor.count_nonzero()) / tensor.numel() == pytest.approx(density)
    kept = {row["part"]: row["kept"] for row in results["ledger"]}
    heads = load_file(finished / "model" / "heads.safetensors")
    assert kept["heads"] == sum(tensor.numel() for tensor in heads.values())
    assert sum(kept.values()) - kept["heads"] == nonzero + sum(
        tensor.numel() for key, tensor in weights.items() if key not in linear
    )


def test_model_loads_without_this_package(finished: Path) -> None:
    model = AutoModel.from_pretrained(finished / "model", add_pooling_layer=False)
    assert not [name for name in model.state_dict() if "mask" in name or "scores" in name]


def test_curves_are_logged(finished: Path) -> None:
    with (finished / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {key for row in rows for key, value in row.items() if value}
    for task in ("agreement", "entailment", "quantity", "roles"):
        assert f"train/{task}/loss" in columns
    assert {"val/score", "val/roles/macro_f1", "density"} <= columns
    assert any(column.startswith("density/model.encoder.encoder.layer.0") for column in columns)
    assert any("lr-" in column for column in columns)
    densities = [float(row["density"]) for row in rows if row["density"]]
    assert densities[0] == 1.0
    assert densities[-1] == pytest.approx(0.3, abs=1e-3)
    assert densities == sorted(densities, reverse=True)
    assert list((finished / "tensorboard").glob("events*"))


def test_finished_run_is_not_overwritten(finished: Path) -> None:
    before = (finished / "results.json").read_bytes()
    said = "already holds a finished run in which budget.fraction was 0.3, and is 0.2 now: choose"
    with pytest.raises(SystemExit, match=said):
        run_in(finished, *SMALL, "pruner=movement")
    assert (finished / "results.json").read_bytes() == before


def test_a_job_is_finished_if_its_settings_give_the_same_results(finished: Path) -> None:
    asked = (*SMALL, "pruner=movement", "budget.fraction=0.3")
    same = (
        "logger=csv",
        "data.mirror=elsewhere",
        "pruner.per_layer=false",
        "data.sort_window=20",
    )
    assert is_finished(finished, plain(composed(*asked, *same)))
    assert not is_finished(finished, plain(composed(*asked, "pruner.per_layer=true")))
    assert not is_finished(finished, plain(composed(*asked, "seed=1")))
    assert not is_finished(finished.parent, plain(composed(*asked)))


def test_full_budget_and_no_pruner_give_the_dense_model(tmp_path: Path) -> None:
    run_in(tmp_path / "none", *SMALL, "pruner=none", "budget=full")
    run_in(tmp_path / "full", *SMALL, "pruner=movement", "budget.fraction=1.0")
    none, full = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("none", "full")
    )
    assert none.keys() == full.keys()
    assert all(torch.equal(none[key], full[key]) for key in none)


def test_interrupted_run_continues_in_its_folder(tmp_path: Path) -> None:
    overrides = [*SMALL, "pruner=platon", "checkpoint.every_n_steps=3"]
    run_in(tmp_path / "straight", *overrides)
    run_interrupted(tmp_path / "stopped", *overrides, kind=Classification, at=5)

    with pytest.raises(SystemExit, match=r"optimizer.learning_rate was 0.0006 and is 0.1"):
        run_in(tmp_path / "stopped", *overrides, "optimizer.learning_rate=0.1")
    run_in(tmp_path / "stopped", *overrides)
    straight, resumed = results_of(tmp_path / "straight"), results_of(tmp_path / "stopped")
    assert resumed["mask_sha256"] == straight["mask_sha256"]
    assert resumed["validation"] == straight["validation"]
    assert resumed["test"] == straight["test"]
    for name in ("straight", "stopped"):
        with (tmp_path / name / "metrics.csv").open(newline="") as file:
            steps = [int(row["step"]) for row in csv.DictReader(file)]
        assert steps == sorted(set(steps))


def test_checkpoints_of_another_model_are_refused_in_a_sentence(tmp_path: Path) -> None:
    small = [one for one in SMALL if not one.startswith("encoder")]
    pretrained = save_untrained(tmp_path / "pretrained")
    settings = [
        *small,
        "encoder=minilm",
        f"encoder.path={pretrained}",
        "checkpoint.every_n_steps=2",
    ]
    run_interrupted(tmp_path / "run", *settings, kind=Classification, at=4)
    # Of the same name, and another size.
    save_untrained(pretrained, hidden=32)
    with pytest.raises(SystemExit) as error:
        run_in(tmp_path / "run", *settings)
    assert str(error.value) == (
        f"error: {tmp_path / 'run' / 'checkpoints'} must hold checkpoints of this model, but they "
        "are of another: choose another hydra.run.dir, or remove them to begin anew."
    )
    status = read_status(tmp_path / "run")
    assert status is not None
    assert status.state == "failed"
    assert "must hold checkpoints of this model" in status.reason


def test_only_checkpoints_that_meet_the_budget_compete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first of three epochs gets a perfect score, before the schedule has ended.
    scores = iter([1.0, 0.5, 0.4, 0.5, 0.5])
    monkeypatch.setattr(
        "multiprune.training.module.mean_score", lambda _: next(scores), raising=True
    )
    run_in(tmp_path / "run", *SMALL, "trainer.max_epochs=3", "schedule.stop=0.5", "logger=csv")
    results = results_of(tmp_path / "run")
    assert results["budget"]["kept"] == results["budget"]["asked"]
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == 1


def test_nan_loss_stops_the_run_with_task_and_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Classification, "loss", lambda _self, logits, _labels: logits.sum() * float("nan")
    )
    with pytest.raises(SystemExit, match=r"is nan for task (agreement|entailment) at step \d"):
        run_in(tmp_path / "run", *SMALL)
    assert not (tmp_path / "run" / "results.json").exists()


def write_mirror(root: Path, **columns: Any) -> None:
    folder = root / "glue" / "rte"
    folder.mkdir(parents=True)
    rows: Mapping[str, list[Any]] = {
        "sentence1": ["the dog runs", "the cat sings"],
        "sentence2": ["a dog", "a horse"],
        "label": [0, 1],
    }
    for split in ("train", "validation"):
        table = {name: columns.get(name, values) for name, values in rows.items()}
        pq.write_table(
            pa.table({k: v for k, v in table.items() if v is not None}), folder / f"{split}.parquet"
        )


def refused(tmp_path: Path, *overrides: str) -> str:
    """Return the sentence with which a run is refused; it must leave no folder."""
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as error:
        run_in(folder, "trainer=cpu", *overrides)
    assert not folder.exists()
    sentence = str(error.value)
    assert sentence.startswith("error: ")
    assert "\n" not in sentence
    return sentence


def test_processes_that_share_one_model_are_refused() -> None:
    with pytest.raises(ValueError, match=r"every process prunes the whole model, but is FSDP"):
        check_strategy(FSDPStrategy())


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["task.agreement.metrics.mine={_target_: multiprune.metrics.Pearson}"],
            r"Metric 'mine' of 'agreement' does not fit: Pearson is for numbers, but the task",
        ),
        (["+pruner.colour=red"], r"`pruner\.colour` is not a setting of Fisher"),
        (["trainer.strategy=ddp", "trainer.devices=2"], "must be ddp_find_unused_parameters_true"),
        (
            ["trainer.strategy=ddp_spawn", "trainer.devices=2"],
            "'spawn' is not supported: use trainer=ddp",
        ),
        (["budget.fraction=0"], r"`fraction` must be in \(0, 1\], but is 0"),
        (["budget.fraction=1.5"], r"`fraction` must be in \(0, 1\], but is 1.5"),
        # Three layers: four projections of 192 x 192, two of 192 x 768.
        (["budget=count", "budget.count=999999999"], "at most the 1,327,104 parameters"),
        (["budget.of=total", "budget.fraction=0.01"], "must hold what is never pruned"),
        (["budget.of=elbows"], "'elbows'"),
        (["pruner=none"], "must hold what is never pruned"),
        (["pruner.parts=[heads]"], "must hold what is never pruned"),
        (
            ["pruner=structured", "+pruner.parts=[embeddings]"],
            "`pruner.parts` is not a setting of Structured, which has importance, granularity, "
            "by_task; pruners of weights have it, as pruner=magnitude",
        ),
        (
            ["pruner=structured", "+pruner.importance.foo=1"],
            "`pruner.importance.foo` is not a setting of GateGradient",
        ),
        (["pruner=low_rank", "+pruner.foo=1"], "`pruner.foo` is not a setting of LowRankL0, which"),
        (["pruner.parts=[encoder_linear,heads]"], "What is pruned must be what the budget counts"),
        (["pruner.parts=[elbows]"], "elbows"),
        (["schedule.start=0.9"], "must not stop before it starts"),
        (["rank_every_n_steps=0"], "at least 1"),
        (["data.batch_size=0"], "at least 1"),
        (["optimizer.learning_rate=-1"], "above 0"),
        (["trainer.max_epochs=-1"], "Set `trainer.max_epochs` or"),
        (
            ["trainer.max_epochs=null", "trainer.max_time=00:00:00:03"],
            "Set `trainer.max_epochs` or",
        ),
        (["trainer.max_steps=0"], r"`trainer\.max_steps` is 0, but a run needs training"),
        (["trainer.accumulate_grad_batches=0"], r"`trainer\.accumulate_grad_batches` is 0"),
        (["trainer.limit_val_batches=0"], r"`trainer\.limit_val_batches` is 0, but a run needs"),
        (["trainer.val_check_interval=0"], r"`trainer\.val_check_interval` is 0"),
        (["+trainer.fast_dev_run=true"], r"`trainer\.fast_dev_run` is not supported"),
        (["trainer.gradient_clip_val=-1"], "at least 0, but is -1"),
        (["trainer.precision=bf16-true"], r"`trainer\.precision` must be one of 32-true"),
        (["trainer.accelerator=gpu", "trainer.devices=99"], "`trainer` must suit this machine"),
        (["+trainer.callbacks=[]"], r"`trainer\.callbacks` is set by the run"),
        (["+data.seed=7"], r"`data\.seed` is set by the run"),
        (["+pruner.budget=5"], r"`pruner\.budget` is set by the run"),
        (["seed=-1"], r"`seed` must be a whole number in \[0, 4294967295\], but is -1"),
        (["optimizer.eps=-1"], "`eps` must be above 0, but is -1"),
        (["optimizer.betas=[0.9]"], "`betas` must be two numbers"),
        (["data.max_length=2"], "must leave room for a text between special tokens"),
        (["data.cap=1000"], r"as by data\.cap\.each=1000, but is 1000"),
        (["data/mixing=fixed"], "one weight of at least 0 for each task"),
        (["experiment=campos2022_domain"], r"Missing values .*encoder\.path"),
        (["experiment=campos2022_regrowth"], r"Missing values .*encoder\.path"),
        (["experiment=campos2022_transfer"], r"Missing values .*encoder\.path"),
        (["data.cap.elbow=5"], "elbow"),
        (["~task"], "at least one task"),
        (["task=[agreement,agreement]"], "names agreement more than once"),
        (["encoder=minilm", "encoder.path=./nowhere"], "nowhere/config.json does not exist"),
        (["task=rte", "data.mirror=./nowhere"], "nowhere/glue/rte does not exist"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_wrong_settings_are_refused_in_a_sentence(
    overrides: list[str], sentence: str, tmp_path: Path
) -> None:
    said = refused(tmp_path, *overrides)
    assert re.search(sentence, said)


def test_a_refused_run_leaves_what_it_did_not_write(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.log").write_text("precious")
    with pytest.raises(SystemExit, match="`seed`"):
        run_in(tmp_path / "run", *SMALL, "seed=-1")
    assert (tmp_path / "run" / "notes.log").read_text() == "precious"


def test_a_run_that_ends_before_its_schedule_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: Pruning is not finished at step 0 of the "):
        run_in(tmp_path / "run", *SMALL, "trainer.max_time=00:00:00:00")
    status = read_status(tmp_path / "run")
    assert status is not None
    assert status.state == "failed"
    assert "Pruning is not finished" in str(status.reason)


def test_settings_that_lightning_looks_at_late_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: .* increase the `limit_val_batches`"):
        run_in(tmp_path / "run", *SMALL, "trainer.limit_val_batches=0.00001")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"sentence2": None}, r"train.parquet must have a column 'sentence2'"),
        ({"label": [0, 7]}, r"Column 'label' of .*train.parquet .* row 1 is 7"),
        ({"label": ["entailment", "elbow"]}, r"Column 'label' of .*row 1 is 'elbow'"),
        ({"sentence1": ["a", None]}, r"Column 'sentence1' of .*row 1 is null"),
        ({"sentence1": [], "sentence2": [], "label": []}, r"train.parquet has no rows"),
    ],
    ids=["missing column", "label id", "label name", "null text", "empty split"],
)
def test_data_that_do_not_fit_their_task_are_refused(
    columns: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    write_mirror(tmp_path / "mirror", **columns)
    said = refused(tmp_path, "task=rte", f"data.mirror={tmp_path / 'mirror'}")
    assert re.search(sentence, said)


def test_runs_of_one_seed_share_frozen_embeddings(tmp_path: Path) -> None:
    tables = {}
    for task, frozen in [("agreement", True), ("roles", True), ("roles", False)]:
        small = [one for one in SMALL if not one.startswith("task.") or f".{task}." in one]
        folder = tmp_path / f"{task} {frozen}"
        run_in(folder, *small, f"task={task}", f"encoder.freeze_embeddings={str(frozen).lower()}")
        weights = load_file(folder / "model" / "model.safetensors")
        tables[task, frozen] = {
            name: one
            for name, one in weights.items()
            if "embeddings" in name and "LayerNorm" not in name
        }
    first, second, trained = tables.values()
    assert len(first) == 3
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(
        first["embeddings.word_embeddings.weight"], trained["embeddings.word_embeddings.weight"]
    )


def test_predictions_by_example_give_the_scores_again(finished: Path) -> None:
    results, answers = results_of(finished), read_predictions(finished)
    for split in ("validation", "test"):
        for task in ("agreement", "entailment"):
            one = answers[split][task]
            assert one.examples.tolist() == list(range(len(one.labels)))
            right = np.mean(one.predictions.numpy() == one.labels.numpy())
            assert results[split][task]["accuracy"] == pytest.approx(right, abs=1e-6)
        numbers = answers[split]["quantity"]
        correlation = np.corrcoef(numbers.predictions.numpy(), numbers.labels.numpy())[0, 1]
        assert results[split]["quantity"]["pearson"] == pytest.approx(correlation, abs=1e-5)
        words = answers[split]["roles"]
        assert np.unique(words.examples.numpy()).tolist() == list(
            range(int(words.examples.max()) + 1)
        )
        right = np.mean(words.predictions.numpy() == words.labels.numpy())
        assert results[split]["roles"]["accuracy"] == pytest.approx(right, abs=1e-6)


def recorded_masks(folder: Path) -> Masks:
    return read_masks(folder, RunRecord.read(folder).density)


def test_saved_masks_are_the_weights_that_are_not_zero(finished: Path) -> None:
    masks, weights = recorded_masks(finished), load_file(finished / "model/model.safetensors")
    assert masks.keys() == results_of(finished)["density"].keys()
    for path, mask in masks.items():
        kept = weights[path.removeprefix("model.encoder.")].numpy() != 0
        np.testing.assert_array_equal(mask.unpacked(), kept)


@pytest.mark.parametrize(
    ("pruner", "kind", "matrix"),
    [
        ("structured_magnitude", "neurons", "intermediate.dense"),
        ("low_rank_gradual", "intermediate.dense.ranks", "intermediate.dense.down"),
    ],
)
def test_saved_masks_say_which_units_and_ranks_were_kept(
    pruner: str, kind: str, matrix: str, tmp_path: Path
) -> None:
    run_in(tmp_path, *SMALL, f"pruner={pruner}", "budget.fraction=0.4")
    masks, weights = recorded_masks(tmp_path), load_file(tmp_path / "model/model.safetensors")
    (path,) = [one for one in masks if one.endswith(f"layer.0.{kind}")]
    (weight,) = [one for name, one in weights.items() if name.endswith(f"{matrix}.weight")]
    kept = int(masks[path].unpacked().sum())
    assert kept == len(weight)
    assert kept < masks[path].size == {"neurons": 32}.get(kind, 16)


def test_model_of_a_run_does_not_outlive_the_beginning_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[MultitaskModel]] = []
    build = MultitaskModel.__init__

    def noted(model: MultitaskModel, *arguments: Any, **options: Any) -> None:
        build(model, *arguments, **options)
        models.append(weakref.ref(model))

    monkeypatch.setattr(MultitaskModel, "__init__", noted)
    gc.disable()
    try:
        for name in ("first", "second"):
            run_in(tmp_path / name, *SMALL)
    finally:
        gc.enable()
    assert len(models) == 2
    assert models[0]() is None


def test_results_count_the_training_examples(finished: Path, tmp_path: Path) -> None:
    assert results_of(finished)["examples"] == dict.fromkeys(
        ("agreement", "entailment", "quantity", "roles"), 48
    )
    run_in(tmp_path / "capped", *SMALL, "data.cap.roles=20")
    assert results_of(tmp_path / "capped")["examples"]["roles"] == 20


SEQUENTIAL = "hydra_plugins.multiprune_launchers.sequential.SequentialLauncher"


@pytest.mark.parametrize(
    ("launcher", "mode", "devices", "refused"),
    [
        ("hydra_plugins.multiprune_launchers.gpus.GpusLauncher", RunMode.MULTIRUN, 2, True),
        ("hydra_plugins.multiprune_launchers.gpus.GpusLauncher", RunMode.MULTIRUN, 1, False),
        ("hydra._internal.core_plugins.basic_launcher.BasicLauncher", RunMode.MULTIRUN, 2, False),
        (SEQUENTIAL, RunMode.MULTIRUN, 2, False),
        ("hydra._internal.core_plugins.basic_launcher.BasicLauncher", RunMode.RUN, 2, False),
    ],
)
def test_job_whose_processes_would_repeat_the_sweep_is_refused(
    launcher: str,
    mode: RunMode,
    devices: int,
    refused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = {"hydra": {"mode": mode, "launcher": {"_target_": launcher}}}
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create(content))
    strategy = "ddp" if devices > 1 else "auto"
    trainer = pl.Trainer(accelerator="cpu", devices=devices, strategy=strategy, logger=False)
    expected = pytest.raises(ValueError, match=r"GpusLauncher is one process, but .* asks for 2")
    with expected if refused else nullcontext():
        check_processes(trainer)
