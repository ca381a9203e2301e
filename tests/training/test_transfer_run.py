"""Whole runs that learn from other runs: from their answers, or from their masks."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import pytest
import torch
from application import SMALL, refused, results_of, run_in, run_interrupted, save_untrained
from safetensors.torch import load_file

from multiprune.tasks.classification import Classification

if TYPE_CHECKING:
    from pathlib import Path

TASKS = ("agreement", "entailment", "quantity", "roles")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    run_in(folder, *SMALL, "pruner=none", "budget=full")
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{name} {key}": tensor
        for name in ("model", "heads")
        for key, tensor in load_file(folder / "model" / f"{name}.safetensors").items()
    }


def sparse(*overrides: str) -> list[str]:
    return [*SMALL, "pruner=magnitude", "budget.fraction=0.1", *overrides]


@pytest.mark.parametrize("kind", ["logits", "hidden"])
def test_a_sparse_student_learns_from_a_dense_teacher(
    kind: str, teacher: Path, tmp_path: Path
) -> None:
    overrides = sparse("checkpoint.every_n_steps=5")
    run_in(tmp_path / "alone", *overrides)
    taught_by = [f"distillation={kind}", f"distillation.teacher={teacher}"]
    run_in(tmp_path / "run", *overrides, *taught_by)
    results, alone = results_of(tmp_path / "run"), results_of(tmp_path / "alone")
    # The teacher is neither counted nor shipped.
    assert results["budget"] == alone["budget"]
    assert results["ledger"] == alone["ledger"]
    taught, plain = weights_of(tmp_path / "run"), weights_of(tmp_path / "alone")
    assert taught.keys() == plain.keys()
    assert any(not torch.equal(taught[key], plain[key]) for key in taught)
    saved = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("run", "alone")
    ]
    assert saved[0]["state_dict"].keys() == saved[1]["state_dict"].keys()
    trained = [one["optimizer_states"][0]["state"].keys() for one in saved]
    assert trained[0] == trained[1]
    assert results["config"]["distillation"]["teacher"] == str(teacher)
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        columns = {key for row in csv.DictReader(file) for key, value in row.items() if value}
    terms = ["loss", "distillation", *(["hidden"] if kind == "hidden" else [])]
    assert {f"train/{task}/{term}" for task in TASKS for term in terms} <= columns


def test_a_teacher_does_not_change_what_the_student_starts_from(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def keep(module: Any, *_: Any) -> None:
        seen.append({key: one.clone() for key, one in module.state_dict().items()})
        raise FloatingPointError("enough was seen")

    monkeypatch.setattr("multiprune.training.module.MultitaskModule.training_step", keep)
    for name, chosen in (("none", []), ("logits", [f"distillation.teacher={teacher}"])):
        with pytest.raises(SystemExit):
            run_in(tmp_path / name, *sparse(f"distillation={name}", *chosen))
    first, second = seen
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("kind", ["logits", "hidden"])
def test_an_interrupted_student_ends_as_one_that_was_not_stopped(
    kind: str, teacher: Path, tmp_path: Path
) -> None:
    overrides = sparse(
        f"distillation={kind}", f"distillation.teacher={teacher}", "checkpoint.every_n_steps=3"
    )
    run_in(tmp_path / "straight", *overrides)
    run_interrupted(tmp_path / "stopped", *overrides, kind=Classification, at=5)
    run_in(tmp_path / "stopped", *overrides)
    straight, resumed = weights_of(tmp_path / "straight"), weights_of(tmp_path / "stopped")
    assert [key for key in straight if not torch.equal(straight[key], resumed[key])] == []
    first, second = (results_of(tmp_path / name) for name in ("straight", "stopped"))
    assert first["mask_sha256"] == second["mask_sha256"]
    assert first["validation"] == second["validation"]


def test_single_task_runs_teach_one_task_each(teacher: Path, tmp_path: Path) -> None:
    rows = next(one for one in SMALL if one.startswith("task.quantity"))
    single = [one for one in SMALL if not one.startswith("task.")]
    alone = ["pruner=none", "budget=full", "task=quantity", rows]
    run_in(tmp_path / "single", *single, *alone)
    paths = dict.fromkeys(TASKS, teacher) | {"quantity": tmp_path / "single"}
    named = "{" + ", ".join(f"{task}: {path}" for task, path in paths.items()) + "}"
    run_in(tmp_path / "run", *sparse("distillation=logits", f"distillation.teacher={named}"))
    assert (tmp_path / "run" / "results.json").is_file()
    only = f"distillation.teacher={tmp_path / 'single'}"
    said = refused(tmp_path / "refused", *sparse("distillation=logits", only))
    assert "not trained on agreement, only on quantity" in said


def test_wrong_teachers_are_refused_in_a_sentence(teacher: Path, tmp_path: Path) -> None:
    for overrides, sentence in (
        (["distillation=logits"], "distillation.teacher"),
        (["distillation=logits", "distillation.teacher=nowhere"], "but nowhere does not exist"),
        (
            ["distillation=hidden", f"distillation.teacher={teacher}", "encoder.hidden=32"],
            "the student's hidden size, 32",
        ),
    ):
        said = refused(tmp_path / "run", *sparse(*overrides))
        assert said.startswith("error: ")
        assert sentence in said


def test_a_mask_of_another_run_stays_as_it_is(tmp_path: Path) -> None:
    run_in(tmp_path / "source", *sparse())
    source = results_of(tmp_path / "source")
    start = [
        "encoder=minilm",
        f"encoder.path={tmp_path / 'source'}",
        "optimizer.learning_rate=0.01",
    ]
    others = [one for one in SMALL if not one.startswith("encoder.")]
    for name, chosen in (("warm", [*others, *start]), ("cold", [*SMALL, "seed=1"])):
        mask = f"pruner.mask.run={tmp_path / 'source'}"
        run_in(tmp_path / name, *chosen, "pruner=fixed", mask, "budget.fraction=0.1")
        results = results_of(tmp_path / name)
        assert results["mask_sha256"] == source["mask_sha256"]
        assert results["density"] == source["density"]
        assert results["budget"] == source["budget"]
        began_with = [str(tmp_path / "source")] if name == "warm" else []
        assert [one["run"] for one in results["lineage"]] == began_with
        before, after = (weights_of(tmp_path / one) for one in ("source", name))
        for key in before:
            if "encoder.layer" in key and before[key].dim() == 2:
                assert torch.equal(before[key] != 0, after[key] != 0)
                assert not torch.equal(before[key], after[key])


def test_masks_that_do_not_fit_are_refused_in_a_sentence(teacher: Path, tmp_path: Path) -> None:
    random = save_untrained(tmp_path / "random", density=0.5)
    for overrides, sentence in (
        ([], "pruner.mask.run"),
        (["pruner.mask.run=nowhere"], "but nowhere does not exist"),
        ([f"pruner.mask.run={teacher}"], "prunes no weights"),
        ([f"pruner.mask.run={random}"], "The budget must hold what the fixed mask keeps, "),
        ([f"pruner.mask.run={random}", "encoder.intermediate=16"], "encoder of the same shapes"),
    ):
        said = refused(tmp_path / "run", *SMALL, "pruner=fixed", *overrides)
        assert said.startswith("error: ")
        assert sentence in said
