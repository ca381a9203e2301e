"""Tasks that label the same texts are trained by one pass of the encoder."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import pytorch_lightning as pl
import torch
from application import NARROW, QUICK, results_of, run_in, run_interrupted
from same_run import differences
from shared_texts import TASKS as TWO_LABELS
from teacher_world import TASKS, encoded, encoder_of
from test_distillation import started
from test_sandwich import World
from two_labels import set_up, tickets

from multiprune.data.shared_texts import SharedTexts, find_shared_texts
from multiprune.models.multitask import MultitaskModel
from multiprune.specialize.origin import read_origin
from multiprune.tasks.classification import Regression
from multiprune.tasks.synthetic import agreement
from multiprune.training.module import MultitaskModule
from multiprune.training.objective import PlainLoss
from multiprune.training.optim import AdamWRecipe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from multiprune.tasks.shared_batch import SharedBatch
    from multiprune.training.objective import Objective

NAMES = ("classes", "sets", "number")
WEIGHTS = {"classes": 1.0, "sets": 0.25, "number": 3.0}
#: Of seven rows, those that have a label of each task.
LABELLED = {"classes": range(7), "sets": [0, 1, 2, 4, 5, 6], "number": [0, 2, 3, 5, 6]}


def texts_of_three(labelled: dict[str, Sequence[int]] = LABELLED) -> SharedTexts:
    tasks = {}
    for name in NAMES:
        one = encoded(name)
        one.splits["train"] = one.splits["train"].select(labelled[name])  # type: ignore[index]
        tasks[name] = one
    (found,) = find_shared_texts(tasks, dict.fromkeys(NAMES, 1.0))
    return found


def batch_of(texts: SharedTexts, rows: Sequence[int]) -> SharedBatch:
    """Return the batch of the texts that stand in these rows of ``classes``."""
    where = [int(np.flatnonzero(texts.rows["classes"] == row)[0]) for row in rows]
    return texts.batch("train", where)


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {
        name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None
    }


def objective_and_model(kind: str, folder: Path) -> tuple[Objective, MultitaskModel]:
    if kind == "plain":
        return PlainLoss(), MultitaskModel(encoder_of().model, TASKS).eval()
    if kind == "sandwich":
        world = World(sampled=1)
        return world.sandwich, world.model
    return started(folder, kind)


@pytest.mark.parametrize("kind", ["plain", "logits", "hidden", "sandwich"])
def test_gradients_of_a_shared_batch_are_the_sum_of_those_of_separate_ones(
    kind: str, tmp_path: Path
) -> None:
    objective, model = objective_and_model(kind, tmp_path)
    # All rows have all labels, as the rows of a teacher's logits are those of the whole splits.
    texts = texts_of_three(dict.fromkeys(NAMES, range(7)))
    rows = [5, 0, 3, 6]
    shared = objective.losses_by_task(model, TASKS, batch_of(texts, rows))
    assert [*shared] == [*NAMES]
    together = torch.stack([WEIGHTS[name] * one.total for name, one in shared.items()]).sum()
    found = gradients(model, together)
    expected: dict[str, Tensor] = {}
    for name in NAMES:
        alone = objective.losses(model, TASKS[name], encoded(name).batch("train", rows))
        for term, value in alone.terms.items():
            torch.testing.assert_close(shared[name].terms[term], value)
        for key, one in gradients(model, WEIGHTS[name] * alone.total).items():
            expected[key] = expected[key] + one if key in expected else one
    assert found.keys() == expected.keys()
    assert len(found) > 20
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["plain", "sandwich"])
def test_rows_without_a_label_add_nothing_to_its_task(kind: str, tmp_path: Path) -> None:
    objective, model = objective_and_model(kind, tmp_path)
    shared = objective.losses_by_task(model, TASKS, batch_of(texts_of_three(), [3, 4, 6]))
    having = {"classes": [3, 4, 6], "sets": [4, 6], "number": [3, 6]}
    for name, rows in having.items():
        alone = objective.losses(model, TASKS[name], encoded(name).batch("train", rows))
        torch.testing.assert_close(shared[name].total, alone.total)


def test_a_task_without_a_label_in_the_batch_is_left_out() -> None:
    model = MultitaskModel(encoder_of().model, TASKS).eval()
    shared = PlainLoss().losses_by_task(model, TASKS, batch_of(texts_of_three(), [4]))
    assert [*shared] == ["classes", "sets"]


class Passes(pl.Callback):
    """Counts the forward passes of the encoder in training."""

    def __init__(self, encoder: nn.Module) -> None:
        self.count, self.encoder = 0, encoder
        encoder.register_forward_hook(self._note)

    def _note(self, *_: Any) -> None:
        self.count += self.encoder.training


def trained(folder: Path, **changes: Any) -> tuple[Passes, pl.Trainer]:
    """Train two labels of 24 texts for an epoch of batches of four."""
    tasks = tickets(rows=24)
    tasks["urgency"].loss_weight = 0.5
    model = MultitaskModel(copy.deepcopy(encoder_of().model), tasks)
    passes = Passes(model.encoder)
    recipe = AdamWRecipe(learning_rate=1e-3, head_learning_rate=1e-3, weight_decay=0.1, warmup=0.1)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[passes],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
        num_sanity_val_steps=0,
    )
    trainer.fit(MultitaskModule(model, tasks, recipe), set_up(folder, tasks, **changes))
    return passes, trainer


def test_an_epoch_of_two_labels_takes_half_the_passes_of_the_encoder(tmp_path: Path) -> None:
    apart, straight = trained(tmp_path)
    together, trainer = trained(tmp_path, share_texts=True)
    assert (apart.count, together.count) == (12, 6)
    assert (straight.global_step, trainer.global_step) == (12, 6)
    # Both tasks are told of, in training and in evaluation.
    assert trainer.callback_metrics.keys() == straight.callback_metrics.keys()
    assert {"train/department/loss", "train/urgency/loss"} <= trainer.callback_metrics.keys()


def test_a_step_minimizes_the_weighted_sum_of_the_losses() -> None:
    tasks = {name: copy.copy(TASKS[name]) for name in NAMES}
    for name, weight in WEIGHTS.items():
        tasks[name].loss_weight = weight
    model = MultitaskModel(encoder_of().model, tasks)
    recipe = AdamWRecipe(learning_rate=1e-3, head_learning_rate=1e-3, weight_decay=0.1, warmup=0.1)
    module = MultitaskModule(model, tasks, recipe).eval()
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    loss = module.training_step(batch_of(texts_of_three(), [0, 3, 6]), 0)
    having = {"classes": [0, 3, 6], "sets": [0, 6], "number": [0, 3, 6]}
    by_hand = 0.0
    for name, rows in having.items():
        alone = encoded(name).batch("train", rows)
        by_hand += WEIGHTS[name] * tasks[name].loss(model(alone), alone.labels).item()
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)


def write_pairs(mirror: Path) -> None:
    """Write pairs of sentences with two labels in the columns of SICK."""
    (mirror / "english" / "sick").mkdir(parents=True)
    for seed, split in enumerate(("train", "validation")):
        sentences = agreement(64, seed)["sentence"]
        columns = {
            "sentence1": sentences,
            "sentence2": sentences[::-1],
            "label": [row % 3 for row in range(64)],
            "relatedness_score": [1.0 + row % 5 for row in range(64)],
        }
        file = mirror / "english" / "sick" / f"{split}.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), file)


@pytest.mark.parametrize("pruner", ["movement", "dynamic_sparsification"])
def test_a_resumed_run_of_shared_texts_ends_as_one_that_was_not_stopped(
    pruner: str, tmp_path: Path
) -> None:
    write_pairs(tmp_path)
    overrides = [
        *(*QUICK, *NARROW, *TWO_LABELS, f"data.mirror={tmp_path}", f"pruner={pruner}"),
        *("budget.fraction=0.3", "data.share_texts=true", "checkpoint.every_n_steps=1"),
    ]
    run_in(tmp_path / "straight", *overrides)
    results = results_of(tmp_path / "straight")
    assert results["steps"] == 4, "64 pairs in batches of 16"
    assert results["examples"] == {"sick": 64, "relatedness": 64}
    # A task that is read alone afterwards, as to specialize it, shares nothing.
    encoder = encoder_of(layers=1)
    assert read_origin(tmp_path / "straight").encoded("sick", encoder).name == "sick"
    run_interrupted(tmp_path / "stopped", *overrides, kind=Regression, at=3)
    run_in(tmp_path / "stopped", *overrides)
    assert differences(tmp_path / "stopped", tmp_path / "straight") == []
