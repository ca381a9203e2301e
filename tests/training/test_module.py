from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from typing_extensions import override

from multiprune.data.source import GeneratedSource
from multiprune.metrics import Accuracy, Metric, Pearson
from multiprune.metrics.predicted import Classes
from multiprune.models.from_scratch import from_scratch
from multiprune.models.multitask import MultitaskModel
from multiprune.tasks.classification import Classification, Regression
from multiprune.tasks.synthetic import agreement, quantity
from multiprune.tasks.task import Batch, Task
from multiprune.training.module import GatheredAnswers, MultitaskModule, ResumeError, mean_score
from multiprune.training.optim import AdamWRecipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class ShareOfOnes(Metric):
    """A second metric, which must not enter the score."""

    accepts = (Classes,)

    @override
    def __call__(self, outputs: Tensor, labels: Tensor) -> float:
        assert outputs.shape == (len(labels), 2)
        return float((labels == 1).float().mean())


def tasks(loss_weight: float = 1.0) -> dict[str, Task]:
    return {
        "choice": Classification(
            text=["sentence"],
            label="label",
            labels=["no", "yes"],
            metrics={"accuracy": Accuracy(), "ones": ShareOfOnes()},
            source=GeneratedSource(generator=agreement, rows={}),
            loss_weight=loss_weight,
        ),
        "number": Regression(
            text=["sentence"],
            label="label",
            minimum=0,
            maximum=10,
            metrics={"pearson": Pearson()},
            source=GeneratedSource(generator=quantity, rows={}),
        ),
    }


def module_with(
    *,
    loss_weight: float = 1.0,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    fused: bool = True,
) -> MultitaskModule:
    torch.manual_seed(0)
    chosen = tasks(loss_weight)
    encoder = from_scratch(layers=1, hidden=16, heads=2, intermediate=32)
    model = MultitaskModel(encoder.model, chosen)
    recipe = AdamWRecipe(
        learning_rate=1e-3, head_learning_rate=1e-3, weight_decay=0.0, warmup=0.0, fused=fused
    )
    return MultitaskModule(model, chosen, recipe, seed=seed, config=config)


def batch_of(task: str, examples: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(5, 20, (examples, 6), generator=generator)
    labels = torch.arange(examples) % 2
    return Batch(
        task,
        {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)},
        labels if task == "choice" else torch.linspace(0, 10, examples) ** 2 / 10,
    )


def loader(batches: Sequence[Batch]) -> DataLoader[Batch]:
    return DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]


def trainer_in(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(folder),
        **options,
    )


def fit(trainer: pl.Trainer, module: MultitaskModule, batches: Sequence[Batch]) -> None:
    trainer.fit(module, loader(batches), loader(batches))


def test_score_is_the_plain_mean() -> None:
    assert mean_score([0.5]) == 0.5
    assert mean_score([1.0, 0.25, -0.5]) == 0.25


def test_answers_are_gathered_over_updates() -> None:
    gathered = GatheredAnswers()
    gathered.update(torch.tensor([1, 2, 3]), torch.tensor([1, 0, 3]), torch.tensor([0, 0, 1]))
    gathered.update(torch.tensor([4]), torch.tensor([5]), torch.tensor([2]))
    assert [one.tolist() for one in gathered.compute()] == [
        [1, 2, 3, 4],
        [1, 0, 3, 5],
        [0, 0, 1, 2],
    ]
    gathered.reset()
    gathered.update(torch.tensor([7, 8]), torch.tensor([9, 0]), torch.tensor([3, 4]))
    assert [one.tolist() for one in gathered.compute()] == [[7, 8], [9, 0], [3, 4]]


def test_the_last_answers_stay_with_the_examples_they_belong_to(tmp_path: Path) -> None:
    module = module_with().eval()
    first, second = (replace(batch_of("choice", 2, seed), rows=[seed, 7]) for seed in (3, 4))
    with torch.no_grad():
        expected = torch.cat([module(one).argmax(-1) for one in (first, second)])
    trainer_in(tmp_path).validate(module, loader([first, second]), verbose=False)
    answers = module.answers["val"]["choice"]
    assert answers.examples.tolist() == [3, 7, 4, 7]
    assert torch.equal(answers.predictions.argmax(-1), expected)
    assert answers.labels.tolist() == [0, 1, 0, 1]
    assert "number" not in module.answers["val"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_metrics_are_of_the_whole_set_whatever_the_batches(split: str, tmp_path: Path) -> None:
    module = module_with().eval()
    right, wrong = batch_of("choice", 5), batch_of("choice", 2, seed=1)
    with torch.no_grad():
        right = replace(right, labels=module(right).argmax(-1))
        wrong = replace(wrong, labels=1 - module(wrong).argmax(-1))
        numbers = [batch_of("number", size, seed=size) for size in (4, 7, 1)]
        # A sequence head's output of -1 to 1 stands for 0 to 10.
        outputs = np.concatenate([module(one)[:, 0].numpy() for one in numbers]) * 5 + 5
    labels = np.concatenate([one.labels.numpy() for one in numbers])
    correlation = float(np.corrcoef(outputs, labels)[0, 1])

    trainer = trainer_in(tmp_path)
    evaluate = trainer.validate if split == "val" else trainer.test
    evaluate(module, [loader([right, wrong]), loader(numbers)], verbose=False)
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    ones = int(right.labels.sum() + wrong.labels.sum()) / 7
    assert logged == {
        f"{split}/choice/accuracy": pytest.approx(5 / 7),
        f"{split}/choice/ones": pytest.approx(ones),
        f"{split}/number/pearson": pytest.approx(correlation, abs=1e-5),
        f"{split}/score": pytest.approx((5 / 7 + correlation) / 2, abs=1e-5),
    }


def test_a_second_evaluation_forgets_the_first(tmp_path: Path) -> None:
    module = module_with().eval()
    batch = batch_of("choice", 4)
    with torch.no_grad():
        predicted = module(batch).argmax(-1)
    trainer = trainer_in(tmp_path)
    for labels, expected in ((predicted, 1.0), (1 - predicted, 0.0)):
        trainer.validate(module, loader([replace(batch, labels=labels)]), verbose=False)
        assert float(trainer.callback_metrics["val/choice/accuracy"]) == expected
        # The other task has no examples here, and no part in the mean.
        assert float(trainer.callback_metrics["val/score"]) == expected


def test_a_set_of_one_example_reaches_the_metrics_as_a_set(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    one = batch_of("choice", 1)
    trainer.validate(module_with(), loader([replace(one, labels=torch.tensor([1]))]), verbose=False)
    assert float(trainer.callback_metrics["val/choice/ones"]) == 1.0


def test_the_loss_is_weighted_for_training_and_logged_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = module_with(loss_weight=3.0).eval()
    logged: dict[str, float] = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value.item()}))
    batch = batch_of("choice", 5)
    trained = module.training_step(batch, 0).item()
    with torch.no_grad():
        logits = module(batch).double().numpy()
    chosen = np.exp(logits)[np.arange(5), batch.labels.numpy()] / np.exp(logits).sum(1)
    loss = float(-np.log(chosen).mean())
    assert logged == {"train/choice/loss": pytest.approx(loss, abs=1e-6)}
    assert trained == pytest.approx(3 * loss, abs=1e-5)


@pytest.mark.parametrize(("bias", "shown"), [(float("nan"), "nan"), (float("inf"), "(inf|nan)")])
def test_a_loss_that_is_not_finite_names_task_and_step(
    bias: float, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_with()
    monkeypatch.setattr(module, "_trainer", SimpleNamespace(global_step=7))
    output = module.model.get_submodule("heads.number.output")
    assert isinstance(output, nn.Linear)
    nn.init.constant_(output.bias, bias)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    module.training_step(batch_of("number", 3), 0)
    monkeypatch.setattr(module, "_trainer", SimpleNamespace(global_step=8))
    with pytest.raises(FloatingPointError, match=f"is {shown} for task number at step 7"):
        module.training_step(batch_of("choice", 3), 1)


def test_the_progress_bar_shows_the_loss_of_steps_that_are_logged(tmp_path: Path) -> None:
    shown, logged = [], []

    class Look(pl.Callback):
        @override
        def on_train_batch_start(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
        ) -> None:
            shown.append(trainer.progress_bar_metrics.get("loss"))
            # Of the batch before.
            logged.append(trainer.logged_metrics.get("train/choice/loss"))

    trainer = trainer_in(tmp_path, Look(), max_steps=5, log_every_n_steps=2)
    fit(trainer, module_with(), [batch_of("choice", 4, seed) for seed in range(5)])
    assert shown == [None, None, logged[2], logged[2], logged[4]]
    assert logged[2] != logged[4]


def draw(
    module: MultitaskModule, monkeypatch: pytest.MonkeyPatch, *, batch: int, epoch: int, rank: int
) -> float:
    fake = SimpleNamespace(global_rank=rank, current_epoch=epoch)
    monkeypatch.setattr(module, "_trainer", fake)
    module.on_train_batch_start(None, batch)
    return float(torch.rand(()))


def test_dropout_depends_on_seed_rank_and_batch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module, other_seed = module_with(seed=3), module_with(seed=4)
    torch.manual_seed(0)
    first = draw(module, monkeypatch, batch=5, epoch=1, rank=0)
    torch.manual_seed(12345)
    assert draw(module, monkeypatch, batch=5, epoch=1, rank=0) == first
    others = [
        draw(other_seed, monkeypatch, batch=5, epoch=1, rank=0),
        draw(module, monkeypatch, batch=5, epoch=1, rank=1),
        draw(module, monkeypatch, batch=5, epoch=2, rank=0),
        draw(module, monkeypatch, batch=6, epoch=1, rank=0),
        draw(module, monkeypatch, batch=1, epoch=5, rank=0),
    ]
    assert len({first, *others}) == 6


@pytest.mark.parametrize("algorithm", [None, "norm"])
def test_gradients_are_clipped_to_their_norm(algorithm: str | None) -> None:
    module = module_with()
    for number, parameter in enumerate(module.model.parameters()):
        generator = torch.Generator().manual_seed(number)
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    before = [one.grad.clone() for one in module.model.parameters() if one.grad is not None]
    norm = float(torch.cat([one.flatten() for one in before]).norm())
    assert norm > 0.5
    module.configure_gradient_clipping(torch.optim.SGD(module.parameters(), lr=1), 0.5, algorithm)
    after = [one.grad for one in module.model.parameters() if one.grad is not None]
    torch.testing.assert_close(after, [one * (0.5 / (norm + 1e-6)) for one in before])


class GradientsAtStep(pl.Callback):
    """Keeps the gradients that the optimizer has used."""

    largest = 0.0
    norm = 0.0

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        gradients = [one.grad for one in pl_module.parameters() if one.grad is not None]
        flat = torch.cat([one.flatten() for one in gradients])
        self.largest, self.norm = float(flat.abs().max()), float(flat.norm())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_fused_optimizer_gets_clipped_gradients(precision: Any, tmp_path: Path) -> None:
    noted = GradientsAtStep()
    trainer = trainer_in(tmp_path, noted, max_steps=1, gradient_clip_val=1e-3, precision=precision)
    fit(trainer, module_with(), [batch_of("choice", 5)])
    assert noted.norm == pytest.approx(1e-3, rel=1e-3)


def test_gradients_can_be_clipped_by_value(tmp_path: Path) -> None:
    noted = GradientsAtStep()
    trainer = trainer_in(
        tmp_path, noted, max_steps=1, gradient_clip_val=1e-4, gradient_clip_algorithm="value"
    )
    fit(trainer, module_with(), [batch_of("choice", 5)])
    assert noted.largest == pytest.approx(1e-4)


def load(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    module_with(config=now).on_load_checkpoint({"hyper_parameters": {"config": saved}})


def test_a_checkpoint_of_another_configuration_is_refused_by_its_first_key() -> None:
    saved = {"seed": 1, "optimizer": {"warmup": 0.1, "betas": [0.9, 0.99]}}
    now = {"seed": 2, "optimizer": {"warmup": 0.1, "betas": [0.9, 0.999]}}
    with pytest.raises(
        ResumeError, match=r"but optimizer\.betas was \[0\.9, 0\.99\] and is \[0\.9, 0\.999\]\.$"
    ):
        load(saved, now)


@pytest.mark.parametrize(
    ("saved", "now", "sentence"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, "but b was None and is 2"),
        ({"a": 1, "b": 2}, {"a": 1}, "but b was 2 and is None"),
        ({"data": {"cap": None}}, {"data": {"cap": {"rte": 5}}}, r"data\.cap\.rte was None and is"),
        ({"data": {"max_length": 8}}, {"data": {"max_length": 9}}, r"data\.max_length was 8"),
    ],
    ids=["added", "removed", "nested", "changed"],
)
def test_added_removed_and_changed_keys_differ(
    saved: dict[str, Any], now: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ResumeError, match=sentence):
        load(saved, now)


def test_where_data_and_curves_are_kept_may_change() -> None:
    same = {"seed": 1, "task": {"rte": {"text": ["a", "b"]}}}
    saved = same | {
        "logger": {"csv": {"folder": "here"}},
        "checkpoint": {"every_n_steps": 5},
        "data": {"mirror": None, "cache": "one"},
        "trainer": {"log_every_n_steps": 10},
    }
    now = same | {
        "logger": {"wandb": {"project": "p"}},
        "checkpoint": {"every_n_steps": 50},
        "data": {"mirror": "/mirror", "cache": "other"},
        "trainer": {"log_every_n_steps": 1},
    }
    load(saved, now)


def test_the_configuration_is_kept_in_checkpoints(tmp_path: Path) -> None:
    module = module_with(config={"seed": 1})
    trainer = trainer_in(tmp_path, max_steps=1)
    fit(trainer, module, [batch_of("choice", 3)])
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    saved = torch.load(tmp_path / "one.ckpt", weights_only=True)
    again = module_with(config={"seed": 1})
    again.trainer = trainer
    again.on_load_checkpoint(saved)
    with pytest.raises(ResumeError, match=r"by as many processes .* were 2 and are 1"):
        again.on_load_checkpoint(saved | {"world_size": 2})
    with pytest.raises(ResumeError, match="seed was 1 and is 2"):
        module_with(config={"seed": 2}).on_load_checkpoint(saved)
