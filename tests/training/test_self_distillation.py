"""A model that learns, while it is pruned, from what it was before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from resumed_world import assert_same_end, fit, rows_in
from teacher_world import SHAPE, TASKS, encoded, encoder_of, save_teacher
from tiny_run import InterruptionError, assert_same, tiny_run

from multiprune.budget import FractionBudget
from multiprune.export.loading import load
from multiprune.models.encoder import Encoder
from multiprune.models.hidden_states import LayerStates, recorded_states
from multiprune.pruning.magnitude import Magnitude
from multiprune.pruning.schedule import CubicSchedule, OneShotSchedule
from multiprune.tracking.csv import MetricsCsv
from multiprune.training import Pruning
from multiprune.training.distillation import hidden_state_loss
from multiprune.training.module import ResumeError
from multiprune.training.self_distillation import SelfDistillation, dense_copy

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytorch_lightning as pl
    from tiny_run import Run
    from torch import Tensor

CONF = Path(__file__).parents[2] / "conf"
PRUNERS = sorted((CONF / "pruner").glob("*.yaml"))
MOVEMENT = CONF / "pruner" / "movement.yaml"
#: Of 12 steps, the last one that sees the dense model in a schedule from 0.1 on.
START = 1


def learning_from_itself(folder: Path, pruner: Path = MOVEMENT, **options: Any) -> Run:
    objective = instantiate(OmegaConf.load(CONF / "distillation" / "self.yaml"))
    run = tiny_run(folder, pruner, objective=objective, log_every_n_steps=1, **options)
    run.trainer.loggers = [MetricsCsv(str(folder))]
    return run


class Weights:
    """Copies the weights of the model before the batch after ``step`` optimizer steps."""

    def __init__(self, run: Run, step: int) -> None:
        self.found: dict[str, Tensor] = {}
        before_batch = run.module.objective.before_batch

        def copied(module: pl.LightningModule) -> None:
            if module.trainer.global_step == step:
                self.found = run.state()
            before_batch(module)

        run.module.objective.before_batch = copied  # type: ignore[method-assign]


def test_the_teacher_is_the_model_before_it_was_pruned(tmp_path: Path) -> None:
    run = learning_from_itself(tmp_path, every_n_steps=1000)
    weights = Weights(run, START)
    fit(run)
    dense = load(tmp_path / "dense")
    encoder = dense.encoder.state_dict()
    assert_same(encoder, {key: weights.found[f"model.encoder.{key}"] for key in encoder})
    heads = dense.heads.state_dict()
    assert_same(heads, {key: weights.found[f"model.heads.{key}"] for key in heads})
    pruned = run.state()["model.encoder.encoder.layer.0.output.dense.weight"]
    assert (pruned == 0).any()
    assert not (encoder["encoder.layer.0.output.dense.weight"] == 0).any()


def test_labels_alone_teach_until_the_schedule_starts(tmp_path: Path) -> None:
    fit(learning_from_itself(tmp_path, every_n_steps=1000))
    rows = rows_in(tmp_path)
    terms = {"train/agreement/hidden", "train/quantity/hidden"}
    # A row tells of the step that it counts to, and of all before it.
    assert not terms & rows[0].keys()
    assert terms <= rows[-1].keys()


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda file: file.stem)
def test_a_dense_copy_answers_as_the_prepared_model_does(pruner: Path, tmp_path: Path) -> None:
    run = tiny_run(tmp_path, pruner, stop_at=START)
    with pytest.raises(InterruptionError):
        fit(run)
    copied = dense_copy(run.module, run.pruning.pruner).eval()
    plain = tiny_run(tmp_path / "plain", CONF / "pruner" / "none.yaml").module.model
    assert copied.state_dict().keys() == plain.state_dict().keys()
    run.data.prepare_data()
    run.data.setup()
    batch = run.data.encoded["agreement"].batch("validation", range(8))
    run.module.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(copied(batch), run.module.model(batch))
    # It is another model: what happens to one does not happen to the other.
    before = run.state()
    for parameter in copied.parameters():
        parameter.data.zero_()
    assert_same(run.state(), before)


@pytest.mark.parametrize("stop_at", [START, START + 1, 9])
def test_a_run_that_learns_from_itself_resumes_bit_for_bit(stop_at: int, tmp_path: Path) -> None:
    straight = fit(learning_from_itself(tmp_path / "straight", every_n_steps=1000))
    with pytest.raises(InterruptionError):
        fit(learning_from_itself(tmp_path / "stopped", stop_at=stop_at))
    resumed = learning_from_itself(tmp_path / "stopped")
    fit(resumed, tmp_path / "stopped" / "last.ckpt")
    assert_same_end(resumed, straight)


def test_a_run_whose_teacher_is_gone_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(InterruptionError):
        fit(learning_from_itself(tmp_path, stop_at=9))
    (tmp_path / "dense").rename(tmp_path / "elsewhere")
    with pytest.raises(ResumeError, match="the model before pruning, is missing"):
        fit(learning_from_itself(tmp_path), tmp_path / "last.ckpt")


def test_a_model_that_has_yet_to_learn_teaches_nothing(tmp_path: Path) -> None:
    objective = SelfDistillation(temperature=2.0, weight=0.9, hidden_weight=0.5)
    pruner = Magnitude(budget=FractionBudget(fraction=0.5))
    objective.watch(Pruning(pruner, CubicSchedule(start=0.0, stop=0.7)))
    encoder = encoder_of()
    with pytest.raises(ValueError, match="untrained teacher for classes, sets, number, tags"):
        objective.prepare(encoder, TASKS, 32)
    finished = f"{save_teacher(tmp_path)}/model"
    objective.prepare(Encoder(encoder.model, encoder.tokenizer, source=finished), TASKS, 32)


@pytest.mark.parametrize(("total", "expected"), [(10, 4), (12, 5), (1, 0)])
def test_what_is_pruned_at_once_is_dense_until_the_step_before(total: int, expected: int) -> None:
    schedule = OneShotSchedule(at=0.5)
    assert schedule.start_step(total) == expected
    assert schedule.stop_step(total) == expected + 1


def states_in(encoder: Encoder, inputs: Mapping[str, Tensor]) -> list[LayerStates]:
    with torch.no_grad(), recorded_states(encoder.model) as recorded:
        encoder.model.train(mode=False)
        encoder.model(**inputs)
    return recorded


def test_errors_of_hidden_states_are_shares_of_what_the_teacher_has() -> None:
    batch = encoded("classes").batch("train", [5, 0, 3])
    student, teacher = (states_in(encoder_of(seed=seed), batch.inputs) for seed in (0, 1))
    real = batch.inputs["attention_mask"].bool()
    shares = [
        (here.states[real] - there.states[real]).square().sum() / there.states[real].square().sum()
        for here, there in zip(student, teacher, strict=True)
    ]
    assert len(shares) == SHAPE["layers"]
    loss = hidden_state_loss(student, teacher, batch.inputs["attention_mask"], relative=True)
    torch.testing.assert_close(loss, torch.stack(shares).mean())
