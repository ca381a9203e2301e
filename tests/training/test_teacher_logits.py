from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from teacher_world import LENGTHS, TASKS, encoded, encoder_of, save_teacher

from multiprune.training.teacher import load_teachers
from multiprune.training.teacher_logits import teacher_logits

if TYPE_CHECKING:
    from pathlib import Path

    from multiprune.data.batches import EncodedTask
    from multiprune.training.teacher import Teacher
    from multiprune.training.teacher_logits import TeacherLogits

CPU = torch.device("cpu")


@pytest.fixture
def teacher(tmp_path: Path) -> Teacher:
    return teacher_in(tmp_path)


def teacher_in(folder: Path, seed: int = 1) -> Teacher:
    source = save_teacher(folder / f"teacher{seed}", seed=seed)
    tokenizer = encoder_of().tokenizer
    return load_teachers(source, tasks=TASKS, tokenizer=tokenizer, max_length=32)["classes"]


def logits_of(teacher: Teacher, task: EncodedTask, folder: Path) -> TeacherLogits:
    return teacher_logits(teacher, task, folder=folder / "cache", device=CPU)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "teacher").iterdir())


@pytest.mark.parametrize("name", TASKS)
def test_kept_logits_are_those_that_the_teacher_gives(
    name: str, teacher: Teacher, tmp_path: Path
) -> None:
    task = encoded(name)
    kept = logits_of(teacher, task, tmp_path)
    for rows in ([0], [3, 0], [6, 2, 4], list(range(len(LENGTHS)))):
        batch = task.batch("train", rows)
        with torch.no_grad():
            expected = teacher.model(name, batch.inputs)
        found = kept.of(batch.rows)
        assert found.shape == expected.shape
        real = batch.inputs["attention_mask"].bool()
        if TASKS[name].output.per_token:
            found, expected = found[real], expected[real]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_more_examples_than_a_batch_keep_their_places(teacher: Teacher, tmp_path: Path) -> None:
    task = encoded("classes", [1 + row * 7 % 11 for row in range(150)])
    kept = logits_of(teacher, task, tmp_path)
    with torch.no_grad():
        for row in (0, 63, 64, 149):
            expected = teacher.model("classes", task.batch("train", [row]).inputs)
            torch.testing.assert_close(kept.of([row]), expected, rtol=0, atol=1e-6)


def test_what_was_computed_once_is_read_bit_for_bit(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = logits_of(teacher, encoded("tags"), tmp_path)
    (file,) = files(tmp_path)
    written = file.stat().st_mtime_ns
    monkeypatch.setattr(teacher.model, "forward", None)
    again = logits_of(teacher, encoded("tags"), tmp_path)
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.starts, again.starts)
    assert files(tmp_path) == [file]
    assert file.stat().st_mtime_ns == written


def test_another_teacher_task_or_text_has_logits_of_its_own(
    teacher: Teacher, tmp_path: Path
) -> None:
    logits_of(teacher, encoded("classes"), tmp_path)
    logits_of(teacher, encoded("sets"), tmp_path)
    logits_of(teacher, encoded("classes", LENGTHS[::-1]), tmp_path)
    logits_of(teacher_in(tmp_path, seed=2), encoded("classes"), tmp_path)
    assert len(files(tmp_path)) == 4


def test_a_damaged_file_is_computed_anew(teacher: Teacher, tmp_path: Path) -> None:
    first = logits_of(teacher, encoded("classes"), tmp_path)
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:-5])
    again = logits_of(teacher, encoded("classes"), tmp_path)
    torch.testing.assert_close(again.values, first.values)
    assert files(tmp_path) == [file]


def test_autocast_does_not_reach_the_teacher(teacher: Teacher, tmp_path: Path) -> None:
    expected = logits_of(teacher, encoded("classes"), tmp_path / "plain")
    with torch.autocast("cpu", torch.bfloat16):
        found = logits_of(teacher, encoded("classes"), tmp_path / "autocast")
    assert found.values.dtype == torch.float32
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-6)
