"""Whole runs of an encoder-decoder: pruned, resumed, taught, and refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from application import QUICK, refused, results_of, run_in, run_interrupted
from safetensors.torch import load_file
from tiny_text_to_text import saved_t5
from torch import nn

import multiprune
from multiprune.runs.predictions import read_predictions
from multiprune.tasks.synthetic import agreement, entailment
from multiprune.tasks.text_to_text import WordedClassification

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_t5(tmp_path_factory.mktemp("t5"), gated=True)


def small(folder: str, *overrides: str) -> list[str]:
    return [
        "encoder=t5_small",
        f"encoder.path={folder}",
        "task=[agreement,entailment]",
        *QUICK,
        "optimizer.learning_rate=1e-2",
        *(
            f"task.{task}.source.rows={{train: 48, validation: 16, test: 16}}"
            for task in ("agreement", "entailment")
        ),
        *overrides,
    ]


def structured(folder: str, *overrides: str) -> list[str]:
    return small(folder, "pruner=structured", "budget.fraction=0.6", *overrides)


def test_run_meets_its_budget_and_ships_what_it_was_evaluated_with(
    folder: str, tmp_path: Path
) -> None:
    run_in(tmp_path / "run", *structured(folder))
    results = results_of(tmp_path / "run")
    # Six attentions of four matrices, four feed-forward networks of three.
    dense = 6 * 4 * 16 * 16 + 4 * 3 * 16 * 12
    assert results["budget"]["dense"] == dense
    asked, group = int(0.6 * dense), 4 * 8 * 16
    assert asked - group < results["budget"]["kept"] <= results["budget"]["asked"] == asked
    model = multiprune.load(tmp_path / "run")
    linear = [
        one
        for path, one in model.encoder.named_modules()
        if isinstance(one, nn.Linear) and path != "lm_head"
    ]
    assert sum(one.weight.numel() for one in linear) == results["budget"]["kept"]
    answers = read_predictions(tmp_path / "run")["test"]
    rows: Any = {"agreement": agreement(16, 2), "entailment": entailment(16, 2)}
    for task, texts in (
        ("agreement", [rows["agreement"]["sentence"]]),
        ("entailment", [rows["entailment"][f"sentence{n}"] for n in (1, 2)]),
    ):
        logits = model.logits(task, *texts)
        assert torch.equal(logits.argmax(1), answers[task].predictions.long())
        assert answers[task].labels.tolist() == rows[task]["label"]


def test_interrupted_run_ends_as_one_that_was_not_stopped(folder: str, tmp_path: Path) -> None:
    overrides = structured(folder, "checkpoint.every_n_steps=2", "schedule=one_shot")
    run_in(tmp_path / "straight", *overrides)
    run_interrupted(tmp_path / "stopped", *overrides, kind=WordedClassification, at=5)
    run_in(tmp_path / "stopped", *overrides)
    straight, resumed = (results_of(tmp_path / name) for name in ("straight", "stopped"))
    for key in ("mask_sha256", "validation", "test", "budget"):
        assert resumed[key] == straight[key]
    first, second = (
        load_file(tmp_path / name / "model" / "model.safetensors")
        for name in ("straight", "stopped")
    )
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_model_learns_from_one_that_answers_with_the_same_words(
    folder: str, tmp_path: Path
) -> None:
    run_in(tmp_path / "teacher", *small(folder, "pruner=none", "budget=full"))
    taught_by = ["distillation=logits", f"distillation.teacher={tmp_path / 'teacher'}"]
    run_in(tmp_path / "student", *structured(folder, *taught_by))
    assert (tmp_path / "student" / "results.json").is_file()
    other = [*structured(folder, *taught_by), "task.agreement.label_words=[no,yes]"]
    said = refused(tmp_path / "other", *other)
    assert (
        "other words for agreement, ['disagrees', 'agrees'], than the student, ['no', 'yes']"
        in said
    )
    hidden = structured(folder, "distillation=hidden", *taught_by[1:])
    assert "whose layers are all of one kind" in refused(tmp_path / "hidden", *hidden)


def test_tasks_that_cannot_be_put_in_words_are_refused(folder: str, tmp_path: Path) -> None:
    demo = [one for one in small(folder) if not one.startswith("task=")]
    said = refused(tmp_path / "run", *demo, "task=demo")
    assert "'quantity' is a task of the kind Regression" in said
    said = refused(tmp_path / "run", *demo, "task=[agreement,roles,entailment]")
    assert "'roles' is a task of the kind Tagging" in said
    same = "task.agreement.label_words=[yes,yes]"
    assert "'yes' and 'yes' are the same" in refused(tmp_path / "run", *small(folder, same))
    template = "task.agreement.template='agreement {text}'"
    said = refused(tmp_path / "run", *small(folder, template))
    assert "`template` of 'agreement' must have the columns sentence in braces" in said
