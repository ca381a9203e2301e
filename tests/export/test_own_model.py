"""``multiprune.save`` of models of transformers that were pruned in somebody's own loop."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForTokenClassification,
    BertModel,
)

import multiprune
from multiprune.budget import FractionBudget
from multiprune.models.from_scratch import character_tokenizer
from multiprune.pruning.combined import Combined
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.importance import WeightMagnitude
from multiprune.pruning.low_rank import LowRankGradual
from multiprune.pruning.magnitude import Magnitude
from multiprune.pruning.movement import Movement
from multiprune.pruning.schedule import LinearSchedule
from multiprune.pruning.structured import Structured
from multiprune.pruning.structured_l0 import StructuredL0

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from multiprune.pruning.pruner import Pruner

BUDGET = FractionBudget(0.4)
PRUNERS: dict[str, Callable[[], Pruner]] = {
    "magnitude": lambda: Magnitude(budget=BUDGET),
    "movement": lambda: Movement(budget=BUDGET, score_learning_rate=0.1),
    "structured": lambda: Structured(budget=BUDGET, importance=WeightMagnitude()),
    "structured_l0": lambda: StructuredL0(
        budget=BUDGET, drop_rate=0.1, gate_learning_rate=0.1, multiplier_learning_rate=0.1
    ),
    "low_rank": lambda: LowRankGradual(budget=BUDGET, smoothing=0.5),
    "combined": lambda: Combined(
        budget=BUDGET,
        structured=lambda budget: Structured(budget=budget, importance=WeightMagnitude()),
        element_wise=lambda budget: Magnitude(budget=budget),
    ),
}
IDS = torch.tensor([[1, 5, 6, 7]])
#: What the step is saved as begins with this.
STEP = "pruning_step"


def network() -> BertForTokenClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    config.num_labels = 3
    model = BertForTokenClassification(config)
    model.train(mode=False)
    return model


def pruned(name: str) -> tuple[BertForTokenClassification, Pruner]:
    """Return a network that was pruned by one step, and its pruner, which is not finalized."""
    model, pruner = network(), PRUNERS[name]()
    pruner.prepare(model, model.bert)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    driver = GradualPruning(pruner, LinearSchedule(start=0, stop=1), total_steps=2, every_n_steps=1)
    driver.attach(optimizer)
    for _ in range(2):
        model(IDS).logits.square().sum().backward()
        optimizer.step()
    return model, pruner


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    found: Tensor = model(IDS).logits
    return found


@pytest.mark.parametrize("name", PRUNERS)
def test_saved_before_and_after_finalize_it_answers_the_same(name: str, tmp_path: Path) -> None:
    model, pruner = pruned(name)
    expected, state = logits(model), copy.deepcopy(model.state_dict())
    multiprune.save(tmp_path / "before", model)
    assert all(torch.equal(one, state[key]) for key, one in model.state_dict().items())
    pruner.finalize()
    multiprune.save(tmp_path / "after", model, character_tokenizer())
    kept = pruner.ledger().kept_in("encoder_linear")
    for folder in (tmp_path / "before", tmp_path / "after"):
        loaded = multiprune.load(folder)
        assert isinstance(loaded, BertForTokenClassification)
        torch.testing.assert_close(logits(loaded), expected)
        assert not any("mask" in key or STEP in key for key in loaded.state_dict())
        linear = [one for key, one in loaded.bert.encoder.named_parameters() if one.ndim == 2]
        assert sum(int(one.count_nonzero()) for one in linear) == kept
        theirs = AutoModelForTokenClassification.from_pretrained(folder, trust_remote_code=True)
        torch.testing.assert_close(logits(theirs), expected)
    assert AutoTokenizer.from_pretrained(tmp_path / "after").vocab_size


def test_a_cut_model_is_saved_with_its_shapes_by_whoever_saves_it(tmp_path: Path) -> None:
    model, _ = pruned("structured")
    expected = logits(model)
    # As the Trainer of transformers does, in the middle of training.
    model.save_pretrained(tmp_path / "trainer", state_dict=model.state_dict())
    theirs = AutoModelForTokenClassification.from_pretrained(
        tmp_path / "trainer", trust_remote_code=True
    )
    torch.testing.assert_close(logits(theirs), expected)
    assert not hasattr(model.config, "multiprune")
    multiprune.save(tmp_path / "encoder", model.bert)
    again = AutoModel.from_pretrained(tmp_path / "encoder", trust_remote_code=True)
    again.save_pretrained(tmp_path / "again")
    encoder = multiprune.load(tmp_path / "again")
    assert isinstance(encoder, BertModel)
    torch.testing.assert_close(encoder(IDS).last_hidden_state, model.bert(IDS).last_hidden_state)


def test_what_was_written_while_it_was_pruned_is_refused(tmp_path: Path) -> None:
    model, _ = pruned("structured")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"while its model was pruned .*pruner\.prepare was"):
        multiprune.load(tmp_path)


def test_shapes_or_weights_that_the_configuration_does_not_describe_are_refused(
    tmp_path: Path,
) -> None:
    model, pruner = pruned("structured")
    pruner.finalize()
    model.save_pretrained(tmp_path)
    config: dict[str, Any] = json.loads((tmp_path / "config.json").read_text())
    for key in ("multiprune", "per_layer_config", "auto_map"):
        del config[key]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"holds \d+ tensors of other shapes .*multiprune\.save"):
        multiprune.load(tmp_path)
    network().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"lacks 16 tensors .* such as bert\.encoder\.layer\.2"):
        multiprune.load(tmp_path)


class Own(BertModel):  # type: ignore[no-untyped-call]
    """A class that transformers does not know."""


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"but is a Linear: save the encoder in it\.$"):
        multiprune.save(tmp_path / "new", nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^Own is not a class of transformers"):
        multiprune.save(tmp_path / "new", Own(network().config))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match=r"old already exists and is not empty"):
        multiprune.save(tmp_path / "old", network())
    model, _pruner = pruned("magnitude")
    with pytest.raises(ValueError, match=r"its pruner is not known, as of a copy or an av"):
        multiprune.save(tmp_path / "new", copy.deepcopy(model))
    assert not (tmp_path / "new").exists()


def test_an_encoder_that_was_cut_can_be_given_a_head_by_transformers(tmp_path: Path) -> None:
    """As where somebody finetunes what was exported, with a Trainer and without this package."""
    model, pruner = pruned("structured")
    pruner.finalize()
    multiprune.save(tmp_path / "encoder", model.bert)
    options: dict[str, Any] = {"trust_remote_code": True}
    headed = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "encoder", num_labels=5, **options
    ).eval()
    assert headed(IDS).logits.shape == (1, 5)
    states = model.bert(IDS).last_hidden_state
    torch.testing.assert_close(headed.base_model(IDS).last_hidden_state, states)
    headed.save_pretrained(tmp_path / "checkpoint")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint", **options)
    torch.testing.assert_close(again.eval()(IDS).logits, headed(IDS).logits)
