"""Masked language modelling in whole runs: beside other tasks, stopped, distilled, handed over."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytorch_lightning as pl
import tiny_run as tiny
import torch
from application import SMALL, run_in
from masked_task import general_text
from recipes import recipe
from tiny_run import InterruptionError, assert_same
from transformers import BertModel
from typing_extensions import override

from multiprune.data.source import GeneratedSource
from multiprune.evaluate import EvaluationRequest, evaluate
from multiprune.export.convert import ExportSettings, export_model
from multiprune.export.loading import load
from multiprune.metrics import TokenAccuracy
from multiprune.models.encoder import pretrained
from multiprune.models.from_scratch import character_tokenizer
from multiprune.runs.predictions import read_predictions
from multiprune.specialize.recipe import LABELS
from multiprune.specialize.request import Request
from multiprune.specialize.specialize import specialize
from multiprune.tasks.masked_language import MaskedLanguage
from multiprune.tasks.packing import beside_texts
from multiprune.tasks.synthetic import agreement

if TYPE_CHECKING:
    from torch import Tensor

    from multiprune.tasks.task import Task

PRUNER = Path(__file__).parents[2] / "conf" / "pruner" / "movement.yaml"
TASKS = tiny.tasks


def with_masked_language() -> dict[str, Task]:
    """Return one task with labels and one of hidden tokens, of texts beside each other."""
    masked = MaskedLanguage(
        text=["sentence"],
        probability=0.15,
        packing=beside_texts,
        metrics={"accuracy": TokenAccuracy()},
        source=GeneratedSource(generator=agreement, rows={"train": 120, "validation": 24}),
    )
    return {"quantity": TASKS()["quantity"], "mlm": masked.read_by(character_tokenizer())}


class NoteMasks(pl.Callback):
    """Keeps what each training batch hides, by the step that it is for."""

    def __init__(self) -> None:
        self.hidden: dict[int, Tensor] = {}

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch.task == "mlm":
            self.hidden[trainer.global_step] = batch.labels


def test_a_resumed_run_hides_the_same_tokens_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "tasks", with_masked_language)
    notes = [NoteMasks(), NoteMasks()]
    straight = tiny.tiny_run(tmp_path / "straight", PRUNER, every_n_steps=1000)
    straight.trainer.callbacks.append(notes[0])  # type: ignore[attr-defined]
    straight.trainer.fit(straight.module, straight.data)

    stopped = tiny.tiny_run(tmp_path / "stopped", PRUNER, stop_at=5)
    with pytest.raises(InterruptionError):
        stopped.trainer.fit(stopped.module, stopped.data)
    resumed = tiny.tiny_run(tmp_path / "stopped", PRUNER)
    resumed.trainer.callbacks.append(notes[1])  # type: ignore[attr-defined]
    last = tmp_path / "stopped" / "last.ckpt"
    resumed.trainer.fit(resumed.module, resumed.data, ckpt_path=last, weights_only=True)

    assert min(notes[1].hidden) >= 5
    for step, hidden in notes[1].hidden.items():
        assert torch.equal(hidden, notes[0].hidden[step])
    assert_same(resumed.state(), straight.state())
    for key in ("val/mlm/accuracy", "val/quantity/pearson", "val/score"):
        assert resumed.trainer.callback_metrics[key] == straight.trainer.callback_metrics[key]


def test_a_run_pretrains_beside_another_task_and_others_continue_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [one for one in SMALL if not one.startswith("task.") or "agreement" in one]
    tasks += ["task=[agreement,mlm]", f"data.mirror={general_text(tmp_path / 'mirror')}"]
    tasks += ["data.max_length=24", f"data.cache={tmp_path / 'cache'}"]
    run = tmp_path / "run"
    run_in(run, *tasks)
    results = json.loads((run / "results.json").read_text())
    scores = results["validation"]
    assert set(scores) == {"agreement", "mlm"}
    assert set(scores["mlm"]) == {"accuracy", "perplexity", "loss"}
    assert results["score"] == pytest.approx(
        (scores["agreement"]["accuracy"] + scores["mlm"]["accuracy"]) / 2
    )
    answers = read_predictions(run)["validation"]["mlm"]
    assert answers.terms is not None
    right, count = answers.terms.terms.double().sum(0).tolist()
    assert right / count == pytest.approx(scores["mlm"]["accuracy"])

    evaluated = evaluate(EvaluationRequest(folder=run, tasks=["mlm"]))
    assert evaluated["mlm"].scores == pytest.approx(scores["mlm"], rel=1e-4)

    # What is shipped answers at each token, and is an encoder to begin from.
    shipped = load(run)
    logits = shipped.logits("mlm", ["the [MASK] runs", "dogs"])
    assert logits.shape == (2, 5, shipped.encoder.config.vocab_size)
    assert BertModel.from_pretrained(run / "model", add_pooling_layer=False)
    start = pretrained(str(run / "model"))
    assert start.model.state_dict().keys() == shipped.encoder.state_dict().keys()
    export_model(run, tmp_path / "exported", ExportSettings())
    again = load(tmp_path / "exported").logits("mlm", ["the [MASK] runs", "dogs"])
    assert torch.equal(again, logits)
    card = (tmp_path / "exported" / "README.md").read_text()
    monkeypatch.chdir(tmp_path / "exported")
    shown: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL)[:2]:
        exec(code, shown)
    found = shown["masked_logits"]("mlm", ["the [MASK] runs", "dogs"])
    torch.testing.assert_close(found, logits)
    with pytest.raises(ValueError, match="because mlm predicts tokens"):
        export_model(run, tmp_path / "cut", ExportSettings(), corpus=["the dog"])

    # Cut for it, the whole model scores what the run has noted.
    for labels in LABELS:
        how = recipe(examples=8, labels=labels)
        (cut,) = specialize(Request(run=run, tasks=["mlm"]), how, out=tmp_path / labels)
        assert cut.before == pytest.approx(scores["mlm"], rel=1e-4)
        assert cut.after["perplexity"] > 0

    # A teacher reads what the student reads.
    distilled = tmp_path / "distilled"
    run_in(distilled, *tasks, "distillation=hidden", f"distillation.teacher={run}")
    header = (distilled / "metrics.csv").read_text().splitlines()[0]
    assert "train/mlm/distillation" in header
    assert "train/mlm/hidden" in header
