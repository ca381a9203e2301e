from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from teacher_world import TASKS, Strategy, encoded, encoder_of, save_teacher
from torch.nn import functional
from waits import Waits

from multiprune.data.datamodule import MultitaskDataModule
from multiprune.data.mixing import ProportionalMixing
from multiprune.models.hidden_states import LayerStates, recorded_states
from multiprune.models.multitask import MultitaskModel
from multiprune.models.padding import padding_is_known
from multiprune.tasks.task import Batch
from multiprune.training.distillation import (
    HiddenDistillation,
    LogitDistillation,
    hidden_state_loss,
    layer_pairs,
)
from multiprune.training.module import MultitaskModule
from multiprune.training.objective import PlainLoss
from multiprune.training.optim import AdamWRecipe

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from multiprune.models.encoder import Encoder

SETTINGS: dict[str, Any] = {"temperature": 2.0, "weight": 0.9}
ROWS = [5, 0, 3]


def distillation_of(teacher: Any, kind: str = "logits", **changed: Any) -> LogitDistillation:
    if kind == "logits":
        return LogitDistillation(teacher=teacher, **SETTINGS | changed)
    return HiddenDistillation(teacher=teacher, hidden_weight=0.6, **SETTINGS | changed)


def trainer_in(folder: Path, student: Encoder, rank: int = 0) -> Any:
    data = MultitaskDataModule(
        tasks=TASKS,
        tokenizer=student.tokenizer,
        max_length=32,
        batch_size=2,
        mixing=ProportionalMixing(),
        cache=str(folder / "cache"),
    )
    data.encoded = {name: encoded(name) for name in TASKS}
    return SimpleNamespace(is_global_zero=rank == 0, datamodule=data, strategy=Strategy())


def started(
    folder: Path, kind: str = "logits", *, layers: int = 2, **changed: Any
) -> tuple[LogitDistillation, MultitaskModel]:
    """Return a distillation that is ready to train, and a student in evaluation mode."""
    student = encoder_of(layers=layers)
    distillation = distillation_of(save_teacher(folder / "run"), kind, **changed)
    distillation.prepare(student, TASKS, 32)
    distillation.start(trainer_in(folder, student))
    return distillation, MultitaskModel(student.model, TASKS).eval()


def teacher_of(distillation: LogitDistillation, task: str) -> Any:
    return distillation.teachers[task].model


def test_no_teacher_leaves_the_loss_of_the_task() -> None:
    model = MultitaskModel(encoder_of().model, TASKS).eval()
    batch = encoded("classes").batch("train", ROWS)
    losses = PlainLoss().losses(model, TASKS["classes"], batch)
    assert torch.equal(losses.total, functional.cross_entropy(model(batch), batch.labels))
    assert losses.terms == {"loss": losses.total}


@pytest.mark.parametrize("weight", [0.25, 1.0])
@pytest.mark.parametrize("name", TASKS)
def test_labels_and_teacher_share_the_loss(name: str, weight: float, tmp_path: Path) -> None:
    distillation, model = started(tmp_path, weight=weight)
    task, batch = TASKS[name], encoded(name).batch("train", ROWS)
    losses = distillation.losses(model, task, batch)
    with torch.no_grad():
        logits = model(batch)
        # In this very batch, with its padding: not from what was kept.
        expected = teacher_of(distillation, name)(name, batch.inputs)
        imitation = task.distillation_loss(logits, expected, batch.labels, 2.0)
        loss = task.loss(logits, batch.labels)
    torch.testing.assert_close(losses.total, (1 - weight) * loss + weight * imitation)
    torch.testing.assert_close(losses.terms["loss"], loss)
    torch.testing.assert_close(losses.terms["distillation"], imitation)


def test_hidden_states_have_their_share(tmp_path: Path) -> None:
    distillation, model = started(tmp_path, "hidden", weight=0.75)
    task, batch = TASKS["classes"], encoded("classes").batch("train", ROWS)
    losses = distillation.losses(model, task, batch)
    teacher = teacher_of(distillation, "classes").encoder
    with torch.no_grad():
        # By the library's own way to hidden states, token by token.
        states = [
            one(**batch.inputs, output_hidden_states=True).hidden_states[1:]
            for one in (model.encoder, teacher)
        ]
        real = batch.inputs["attention_mask"].bool()
        assert not real.all()
        by_layer = [
            functional.mse_loss(here[real], there[real])
            for here, there in zip(*states, strict=True)
        ]
    hidden = torch.stack(by_layer).mean()
    loss, imitation = losses.terms["loss"], losses.terms["distillation"]
    torch.testing.assert_close(losses.terms["hidden"], hidden)
    torch.testing.assert_close(losses.total, 0.25 * loss + 0.75 * (0.4 * imitation + 0.6 * hidden))


def test_the_teacher_of_hidden_states_reads_a_batch_once(tmp_path: Path) -> None:
    distillation, model = started(tmp_path, "hidden")
    task, batch = TASKS["classes"], encoded("classes").batch("train", ROWS)
    kept = distillation.losses(model, task, batch)
    # As for tasks that are corrupted anew each time: no logits are kept.
    distillation.logits = {}
    calls: list[Any] = []
    teacher = teacher_of(distillation, "classes").encoder
    teacher.register_forward_hook(lambda *_: calls.append(None))
    torch.testing.assert_close(distillation.losses(model, task, batch).total, kept.total)
    assert len(calls) == 1


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it(tmp_path: Path) -> None:
    distillation, model = started(tmp_path, "hidden", weight=1.0)
    shipped = teacher_of(distillation, "classes")
    model.encoder.load_state_dict(shipped.encoder.state_dict())
    model.heads.load_state_dict(shipped.heads.state_dict())
    losses = distillation.losses(model, TASKS["classes"], encoded("classes").batch("train", ROWS))
    assert losses.total.item() == pytest.approx(0, abs=1e-6)
    assert losses.terms["loss"].item() > 0.1


@pytest.mark.parametrize("kind", ["logits", "hidden"])
def test_only_the_student_has_gradients(kind: str, tmp_path: Path) -> None:
    distillation, model = started(tmp_path, kind)
    for name, task in TASKS.items():
        losses = distillation.losses(model, task, encoded(name).batch("train", ROWS))
        losses.total.backward()  # type: ignore[no-untyped-call]
        teacher = teacher_of(distillation, name)
        assert all(one.grad is None and not one.requires_grad for one in teacher.parameters())
    assert all(one.grad is not None for one in model.parameters())


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("kind", ["logits", "hidden"])
def test_a_teacher_is_waited_for_no_more_than_the_student(
    kind: str, name: str, tmp_path: Path
) -> None:
    distillation, model = started(tmp_path, kind)
    batch, waits = encoded(name).batch("train", ROWS).to(torch.device("cpu")), Waits()
    teacher = teacher_of(distillation, name)
    waits.claim([*model.parameters(), *model.buffers(), *batch.inputs.values(), batch.labels])
    waits.claim([*teacher.parameters(), *teacher.buffers()])
    with waits, padding_is_known(model.encoder, is_padded=batch.is_padded):
        distillation.losses(model, TASKS[name], batch).total.backward()  # type: ignore[no-untyped-call]
    assert waits.found == []


@pytest.mark.parametrize("kind", ["logits", "hidden"])
def test_the_teacher_is_no_part_of_the_module(kind: str, tmp_path: Path) -> None:
    distillation, model = started(tmp_path, kind)
    recipe = AdamWRecipe(learning_rate=1, head_learning_rate=1, weight_decay=0, warmup=0)
    plain = MultitaskModule(model, TASKS, recipe)
    module = MultitaskModule(model, TASKS, recipe, objective=distillation)
    assert list(module.state_dict()) == list(plain.state_dict())
    assert [id(one) for one in module.parameters()] == [id(one) for one in plain.parameters()]
    module.train()
    assert not teacher_of(distillation, "classes").training


@pytest.mark.parametrize("layers", [1, 3, 4])
def test_student_and_teacher_may_differ_in_depth(layers: int, tmp_path: Path) -> None:
    distillation, model = started(tmp_path, "hidden", layers=layers)
    batch = encoded("classes").batch("train", ROWS)
    losses = distillation.losses(model, TASKS["classes"], batch)
    with torch.no_grad(), recorded_states(model.encoder) as found:
        model(batch)
    assert len(found) == layers
    assert losses.terms["hidden"] > 0


@pytest.mark.parametrize(
    ("dropped", "depth", "pairs"),
    [
        # TinyBERT: the m-th of 4 layers learns from layer 3 m of 12.
        ([False] * 4, 12, [(0, 2), (1, 5), (2, 8), (3, 11)]),
        ([False] * 6, 12, [(0, 1), (1, 3), (2, 5), (3, 7), (4, 9), (5, 11)]),
        ([False] * 3, 3, [(0, 0), (1, 1), (2, 2)]),
        ([False] * 4, 2, [(0, 0), (1, 0), (2, 1), (3, 1)]),
        ([False] * 2, 3, [(0, 1), (1, 2)]),
        ([True, False, True, False], 4, [(1, 1), (3, 3)]),
        ([False, False, True], 3, [(0, 0), (1, 1), (2, 2)]),
        ([True, True], 2, [(1, 1)]),
    ],
)
def test_layers_are_paired_evenly(
    dropped: list[bool], depth: int, pairs: list[tuple[int, int]]
) -> None:
    assert layer_pairs(dropped, depth) == pairs


def test_squared_error_of_hidden_states_by_hand() -> None:
    def layer(*rows: list[float]) -> LayerStates:
        return LayerStates(torch.tensor([rows]).float(), is_dropped=False)

    student = [layer([1, 1], [0, 0], [9, 9]), layer([2, 0], [0, 4], [9, 9])]
    teacher = [layer([0, 1], [0, 0], [0, 0]), layer([0, 0], [0, 0], [0, 0])]
    # The third token is padding. Four entries a layer: (1) / 4 and (4 + 16) / 4; their mean.
    found = hidden_state_loss(student, teacher, torch.tensor([[1, 1, 0]]))
    assert found.item() == pytest.approx((0.25 + 5) / 2)


def test_other_ranks_read_what_the_first_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = started(tmp_path)
    student = encoder_of()
    other = distillation_of(str(tmp_path / "run"))
    other.prepare(student, TASKS, 32)
    monkeypatch.setattr(teacher_of(other, "classes"), "forward", None)
    trainer = trainer_in(tmp_path, student, rank=1)
    other.start(trainer)
    assert trainer.strategy.barriers == 1
    for name in TASKS:
        assert torch.equal(other.logits[name].values, first.logits[name].values)


def test_loss_is_in_full_precision_under_autocast(tmp_path: Path) -> None:
    distillation, model = started(tmp_path, "hidden")
    with torch.autocast("cpu", torch.bfloat16):
        batch = encoded("classes").batch("train", ROWS)
        losses = distillation.losses(model, TASKS["classes"], batch)
    assert {name: term.dtype for name, term in losses.terms.items()} == dict.fromkeys(
        ("loss", "distillation", "hidden"), torch.float32
    )
    assert torch.isfinite(losses.total)


def test_batches_must_say_which_rows_they_hold(tmp_path: Path) -> None:
    distillation, model = started(tmp_path)
    batch = encoded("classes").batch("train", ROWS)
    nameless = Batch(batch.task, batch.inputs, batch.labels)
    with pytest.raises(ValueError, match="A batch of classes has no row numbers"):
        distillation.losses(model, TASKS["classes"], nameless)


def test_data_must_hold_encoded_tasks(tmp_path: Path) -> None:
    distillation, _ = started(tmp_path)
    trainer = trainer_in(tmp_path, encoder_of())
    trainer.datamodule = None
    with pytest.raises(TypeError, match="trains on a NoneType"):
        distillation.start(trainer)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"temperature": 0.0}, "`temperature` must be above 0, but is 0.0"),
        ({"weight": 0.0}, r"must be in \(0, 1\], but is 0.0"),
        ({"weight": 1.5}, r"must be in \(0, 1\], but is 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(changed: dict[str, float], sentence: str) -> None:
    for kind in ("logits", "hidden"):
        with pytest.raises(ValueError, match=sentence):
            distillation_of("nowhere", kind, **changed)


@pytest.mark.parametrize("hidden_weight", [0.0, -1.0, 1.1])
def test_weight_of_hidden_states_out_of_range_is_refused(hidden_weight: float) -> None:
    with pytest.raises(ValueError, match=r"`hidden_weight` must be in \(0, 1\], but is "):
        HiddenDistillation(teacher="nowhere", hidden_weight=hidden_weight, **SETTINGS)


def test_another_hidden_size_is_refused_for_hidden_states_alone(tmp_path: Path) -> None:
    student, source = encoder_of(), save_teacher(tmp_path, hidden=32)
    distillation_of(source).prepare(student, TASKS, 32)
    with pytest.raises(ValueError, match=r"the student's hidden size, 16, but .* has 32"):
        distillation_of(source, "hidden").prepare(student, TASKS, 32)


def state(tensor: Tensor) -> LayerStates:
    return LayerStates(tensor, is_dropped=False)


def test_padding_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, 4, generator=generator).unbind(0)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    short = hidden_state_loss([state(student[:, :3])], [state(teacher[:, :3])], mask[:, :3])
    torch.testing.assert_close(hidden_state_loss([state(student)], [state(teacher)], mask), short)
