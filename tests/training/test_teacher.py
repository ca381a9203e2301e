from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from teacher_world import SHAPE, TASKS, encoder_of, save_teacher

import multiprune
from multiprune.training.teacher import load_teachers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from multiprune.models.encoder import Encoder
    from multiprune.tasks.task import Task
    from multiprune.training.teacher import Teacher

STUDENT = encoder_of()


def load(
    source: Any, tasks: Mapping[str, Task] = TASKS, student: Encoder = STUDENT, length: int = 64
) -> dict[str, Teacher]:
    return load_teachers(source, tasks=tasks, tokenizer=student.tokenizer, max_length=length)


def test_one_multitask_teacher_is_loaded_once(tmp_path: Path) -> None:
    teachers = load(save_teacher(tmp_path))
    assert list(teachers) == list(TASKS)
    assert len({id(teacher) for teacher in teachers.values()}) == 1
    teacher = teachers["classes"]
    shipped = multiprune.load(tmp_path)
    for (name, found), (_, expected) in zip(
        teacher.model.named_parameters(), shipped.named_parameters(), strict=True
    ):
        assert torch.equal(found, expected), name
        assert not found.requires_grad
        assert found.dtype == torch.float32
    assert not any(module.training for module in teacher.model.modules())


def test_each_task_may_have_its_own_teacher(tmp_path: Path) -> None:
    paths = {
        name: save_teacher(tmp_path / name, tasks={name: task}, seed=number)
        for number, (name, task) in enumerate(TASKS.items())
    }
    # Teachers of tasks that this run has not are not needed, and not read.
    teachers = load(paths | {"elbow": "nowhere"})
    assert {name: str(teacher.folder.parent) for name, teacher in teachers.items()} == paths
    assert len({teacher.digest for teacher in teachers.values()}) == len(TASKS)


def test_a_task_without_a_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has none for number, tags\.$"):
        load({"classes": save_teacher(tmp_path), "sets": str(tmp_path)})


def test_a_teacher_that_has_not_learned_a_task_is_refused_by_its_name(tmp_path: Path) -> None:
    source = save_teacher(tmp_path, tasks={name: TASKS[name] for name in ("classes", "sets")})
    with pytest.raises(ValueError, match="not trained on number, only on classes, sets"):
        load(source)


@pytest.mark.parametrize(
    ("name", "changed", "sentence"),
    [
        ("classes", {"labels": ["good", "bad", "fair"]}, r"other labels for classes, \['bad', 'g"),
        (
            "number",
            {"maximum": 10},
            r"other bounds for number, \[0, 5\], than the student, \[0, 10\]",
        ),
        (
            "tags",
            {"text": ["words"]},
            r"other columns for tags, \['text'\], than the student, \['words'\]",
        ),
    ],
)
def test_other_answers_are_refused_by_the_name_of_the_task(
    name: str, changed: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    task: Any = TASKS[name]
    with pytest.raises(ValueError, match=sentence):
        load(save_teacher(tmp_path), {name: replace(task, **changed)})


def test_the_column_of_labels_may_be_called_otherwise(tmp_path: Path) -> None:
    task: Any = TASKS["classes"]
    assert load(save_teacher(tmp_path), {"classes": replace(task, label="answer")})


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    student = encoder_of()
    student.tokenizer.add_tokens(["elbow"])
    count = len(STUDENT.tokenizer)
    with pytest.raises(ValueError, match=rf"has {count} tokens .* the student has {count + 1} "):
        load(save_teacher(tmp_path), student=student)


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    student = encoder_of()
    student.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    with pytest.raises(ValueError, match=r"the student has .* takes input_ids, attention_mask"):
        load(save_teacher(tmp_path), student=student)


def test_texts_longer_than_its_positions_are_refused(tmp_path: Path) -> None:
    source = save_teacher(tmp_path)
    assert load(source, length=512)
    with pytest.raises(ValueError, match=r"has only 512 positions, but `data.max_length` is 513"):
        load(source, length=513)


def test_a_run_that_has_not_finished_is_no_teacher(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="must be the folder of a finished run"):
        load(str(tmp_path))


def test_digest_changes_with_the_weights_alone(tmp_path: Path) -> None:
    sources = [
        save_teacher(tmp_path / str(number), seed=seed) for number, seed in enumerate((1, 1, 2))
    ]
    sources.append(save_teacher(tmp_path / "wide", hidden=2 * SHAPE["hidden"]))
    digests = [load(source)["classes"].digest for source in sources]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
