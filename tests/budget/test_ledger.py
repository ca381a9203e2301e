"""The ledger: every parameter once, in the part it belongs to."""

from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from multiprune.budget import Budget, CountBudget, FractionBudget, ParameterLedger
from multiprune.pruning.magnitude import Magnitude

VOCABULARY, HIDDEN, LAYERS, INTERMEDIATE, POSITIONS, TYPES, LABELS = 13, 8, 2, 16, 10, 2, 3

EMBEDDINGS = (VOCABULARY + POSITIONS + TYPES) * HIDDEN
# Query, key, value and output; up and down.
LINEAR = LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INTERMEDIATE)
# A LayerNorm for the embeddings and two a layer, with weight and bias; biases of linear layers.
OTHER = 2 * HIDDEN + LAYERS * (2 * 2 * HIDDEN + 4 * HIDDEN + INTERMEDIATE + HIDDEN)
HEADS = HIDDEN * LABELS + LABELS


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            intermediate_size=INTERMEDIATE,
            max_position_embeddings=POSITIONS,
            type_vocab_size=TYPES,
        )
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(HIDDEN, LABELS)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in set(model.parameters()))


def test_parts_of_bert_are_those_of_its_configuration() -> None:
    model = Classifier()
    ledger = ParameterLedger.of(model, model.encoder)
    assert ledger.dense == {
        "embeddings": EMBEDDINGS,
        "encoder_linear": LINEAR,
        "encoder_other": OTHER,
        "heads": HEADS,
    }
    assert ledger.kept == ledger.dense
    assert not any(ledger.prunable.values())


def test_denominators_are_sums_of_parts() -> None:
    model = Classifier()
    ledger = ParameterLedger.of(model, model.encoder)
    assert ledger.dense_in("encoder_linear") == LINEAR
    assert ledger.dense_in("encoder") == EMBEDDINGS + LINEAR + OTHER == count(model.encoder)
    assert ledger.dense_in("total") == count(model)


def test_model_on_its_own_is_all_encoder() -> None:
    ledger = ParameterLedger.of(Classifier())
    assert ledger.dense["heads"] == 0
    assert ledger.dense["encoder_linear"] == LINEAR + HIDDEN * LABELS
    assert ledger.dense_in("total") == count(Classifier())


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 4))
        self.output = nn.Linear(4, 11)
        self.output.weight = self.encoder.get_parameter("0.weight")


def test_tied_embeddings_are_counted_once_with_their_first_owner() -> None:
    model = LanguageModel()
    ledger = ParameterLedger.of(model, model.encoder)
    # The output's own bias is all that the head adds.
    assert ledger.dense == {
        "embeddings": 44,
        "encoder_linear": 16,
        "encoder_other": 4,
        "heads": 11,
    }
    assert ledger.dense_in("total") == count(model) == 75


def test_masks_reduce_what_is_kept_and_say_what_is_in_scope() -> None:
    model = LanguageModel()
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[0, :3] = False
    ledger = ParameterLedger.of(model, model.encoder, masks={"encoder.1.weight": mask})
    assert ledger.kept_in("encoder_linear") == 13
    assert ledger.kept_in("total") == 72
    assert ledger.fixed_in("encoder_linear") == 0
    assert ledger.fixed_in("encoder") == 48
    assert [asdict(row) for row in ledger.rows()] == [
        {"part": "embeddings", "dense": 44, "kept": 44, "in_scope": False},
        {"part": "encoder_linear", "dense": 16, "kept": 13, "in_scope": True},
        {"part": "encoder_other", "dense": 4, "kept": 4, "in_scope": False},
        {"part": "heads", "dense": 11, "kept": 11, "in_scope": False},
    ]


def test_unknown_denominator_is_an_error() -> None:
    with pytest.raises(ValueError, match="is 'linear'"):
        ParameterLedger.of(nn.Linear(2, 2)).dense_in("linear")


@pytest.mark.parametrize(
    ("budget", "asked"),
    [
        (FractionBudget(fraction=0.25, of="encoder_linear"), LINEAR // 4),
        (FractionBudget(fraction=0.5, of="encoder"), (EMBEDDINGS + LINEAR + OTHER) // 2),
        (FractionBudget(fraction=0.5, of="total"), (EMBEDDINGS + LINEAR + OTHER + HEADS) // 2),
        (CountBudget(count=1_000, of="encoder"), 1_000),
        (CountBudget(count=1_001, of="total"), 1_001),
    ],
    ids=["linear_fraction", "encoder_fraction", "total_fraction", "encoder_count", "total_count"],
)
def test_pruned_model_keeps_exactly_what_its_denominator_allows(budget: Budget, asked: int) -> None:
    model = Classifier()
    pruner = Magnitude(budget=budget)
    pruner.prepare(model, model.encoder)
    pruner.prune(1.0)
    ledger = pruner.ledger()
    assert ledger.kept_in(budget.of) == asked
    pruned: list[Tensor] = [~mask for mask in pruner.masks().values()]
    assert sum(int(one.sum()) for one in pruned) == ledger.dense_in(budget.of) - asked


def test_budget_below_the_embeddings_is_refused_before_training() -> None:
    model = Classifier()
    fixed = f"that is {EMBEDDINGS + OTHER}: embeddings {EMBEDDINGS}, encoder_other {OTHER}"
    with pytest.raises(ValueError, match=fixed):
        Magnitude(budget=CountBudget(count=300, of="encoder")).prepare(model, model.encoder)
